"""The sample app on Python's standard library: says its version, and misbehaves on request.

The files VERSION and BEHAVIOUR in the working directory say what it answers and how it fails.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

# Longer than a proxy in front keeps its idle connections, so that the proxy closes first.
IDLE_TIMEOUT = 10


def first_line(file):
    try:
        with open(file, encoding="utf-8") as lines:
            return lines.readline().strip()
    except FileNotFoundError:
        return ""


VERSION = first_line("VERSION") or "v0"
BEHAVIOUR, _, ARGUMENT = first_line("BEHAVIOUR").partition(" ")
SECONDS = float(ARGUMENT or 0)
STARTED = time.monotonic()


class InFlight:
    """Counts the requests being answered, so that stopping can wait for them."""

    def __init__(self):
        self.changed = threading.Condition()
        self.count = 0
        self.stopping = False

    def begin(self):
        with self.changed:
            self.count += 1

    def end(self):
        with self.changed:
            self.count -= 1
            self.changed.notify_all()

    def finish(self):
        with self.changed:
            self.stopping = True
            self.changed.wait_for(lambda: self.count == 0)


IN_FLIGHT = InFlight()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT
    # Headers and body leave in one packet, and at once.
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle_one_request(self):
        self.began = False
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True
        finally:
            if self.began:
                IN_FLIGHT.end()

    def parse_request(self):
        # Called once the request line is there: from here on it is in flight.
        self.began = True
        IN_FLIGHT.begin()
        return super().parse_request()

    def do_GET(self):
        self.respond()

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.respond()

    def respond(self):
        if BEHAVIOUR == "500":
            self.answer(500, "database password wrong\n")
        elif BEHAVIOUR == "301":
            self.answer(301, "", {"Location": "/login"})
        elif BEHAVIOUR == "hang":
            threading.Event().wait()
        elif BEHAVIOUR == "ready" and time.monotonic() - STARTED < SECONDS:
            self.answer(503, "starting\n")
        else:
            self.serve()

    def serve(self):
        url = urlsplit(self.path)
        match self.command, url.path:
            case "POST", "/echo":
                self.answer(200, self.body)
            case "GET", "/":
                self.answer(200, VERSION + "\n")
            case "GET", "/slow":
                time.sleep(int(parse_qs(url.query)["ms"][0]) / 1000)
                self.answer(200, VERSION + "\n")
            case "GET", "/pid":
                self.answer(200, f"{os.getpid()}\n")
            case "GET", "/env":
                self.answer(200, lines(os.environ.items(), "="))
            case "GET", "/headers":
                self.answer(200, lines(self.headers.items(), ": "))
            case _:
                self.answer(404, "not found\n")

    def answer(self, status, body, headers=None):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if IN_FLIGHT.stopping:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


def lines(entries, separator):
    """One line per entry, NAME<separator>VALUE, sorted."""
    return "".join(sorted(f"{name}{separator}{value}\n" for name, value in entries))


def refuse_to_stop():
    """Neither it nor its child, which inherits this, can be asked to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "infinity"])


def serve(port):
    server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def serve_until_sigterm(port):
    # Blocked in every thread, so that it stays pending until the wait below takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    server = serve(port)
    signal.sigwait([signal.SIGTERM])
    server.shutdown()
    server.socket.close()
    IN_FLIGHT.finish()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=os.environ.get("PORT", 8080))
    port = parser.parse_args().port

    match BEHAVIOUR:
        case "exit":
            print(f"{VERSION} opens its database", file=sys.stderr)
            print("cannot open database: connection refused", file=sys.stderr)
            return 3
        case "deaf":
            threading.Event().wait()
        case "slow":
            time.sleep(SECONDS)
        case "hang":
            serve(port)
            threading.Event().wait()
        case "stubborn":
            refuse_to_stop()
            serve(port)
            threading.Event().wait()
        case "dies":
            threading.Timer(SECONDS, os._exit, [1]).start()
    serve_until_sigterm(port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
