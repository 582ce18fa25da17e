#!/bin/sh
# A whole life in under a minute: a private nginx, a git repository, a deploy, another one under load, a crash, a rollback.
# Everything lies in one temporary directory and is gone afterwards. Fails if the deploy or the rollback lost a request.
set -eu
exec 2>&1
here=$(cd "$(dirname "$0")/.." && pwd)
built=$here/target/$(rustc --print host-tuple)/release

place=$(mktemp -d "${TMPDIR:-/tmp}/cutover-demo.XXXXXX")
export HOME="$place"
export GIT_AUTHOR_NAME=demo GIT_AUTHOR_EMAIL=demo@example.org GIT_COMMITTER_NAME=demo GIT_COMMITTER_EMAIL=demo@example.org
load=

clean_up() {
    status=$?
    trap - EXIT INT TERM
    [ -z "$load" ] || kill "$load" 2>/dev/null || true
    if [ -x "$place/.demo/bin/install" ]; then
        "$place/.demo/bin/install" --config "$place/demo.toml" --home "$place/.demo" --remove --force 2>/dev/null || true
    fi
    rm -rf "$place"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# shellcheck source=tests/demo-parts.sh
. "$here/tests/demo-parts.sh"

# Four ports in a row that nobody listens on.
is_free() { ! grep -qi ":$(printf %04X "$1") [0-9A-F:]* 0A" /proc/net/tcp /proc/net/tcp6 2>/dev/null; }
port=21080
until is_free $port && is_free $((port + 1)) && is_free $((port + 2)) && is_free $((port + 3)); do port=$((port + 10)); done

say "A git repository with version 1 of a small web app"
git init --quiet --initial-branch=main "$place/app"
cp "$here/tests/apps/python/server.py" "$place/app/"
commit() {
    echo "$1" >"$place/app/VERSION"
    git -C "$place/app" add --all
    git -C "$place/app" commit --quiet --message "$1"
}
commit "version 1"
cat >"$place/demo.toml" <<EOF
app = "demo"
[instances]
A = $((port + 1))
B = $((port + 2))
[source]
git = "$place/app"
[run]
command = "exec python3 server.py --port=\$PORT"
[nginx]
own = true
listen = ["127.0.0.1:$port"]
status_port = $((port + 3))
EOF
cat "$place/demo.toml"

say "Install: a home, the tools, an nginx of its own, root nowhere"
show "$built/install" --config "$place/demo.toml"
PATH="$place/.demo/bin:$PATH"

say "The first deploy"
show deploy
show curl --silent "http://127.0.0.1:$port/"

begin_load "$place" "$built" "127.0.0.1:$port"

say "Version 2 is pushed and deployed"
commit "version 2"
show deploy
show curl --silent "http://127.0.0.1:$port/"
report "deploy"
must_lose_nothing "deploy"

say "Both instances side by side"
show status

say "The enabled instance is killed with SIGKILL; the warm standby answers until it is back (a POST in flight is lost: nginx may not send it twice)"
echo "\$ kill -9 \$(pid)"
kill -9 "$(pid)"
sleep 1
report "kill -9"
status | grep -E "restarts|health"

say "Back to version 1"
show rollback
show curl --silent "http://127.0.0.1:$port/"
report "rollback"
must_lose_nothing "rollback"

end_load
