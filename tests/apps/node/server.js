// The sample app on Node: says its version, and misbehaves on request.
//
// The files VERSION and BEHAVIOUR in the working directory say what it answers and how it fails.

'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');

// Longer than a proxy in front keeps its idle connections, so that the proxy closes first.
const IDLE_TIMEOUT_MS = 10_000;

const { values: options } = parseArgs({ options: { port: { type: 'string' } } });
const port = Number(options.port ?? process.env.PORT ?? 8080);
const version = firstLine('VERSION') || 'v0';
const [behaviour = '', seconds = '0'] = firstLine('BEHAVIOUR').split(' ');

function firstLine(file) {
  try {
    return fs.readFileSync(file, 'utf8').split('\n')[0].trim();
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
}

function answer(response, status, body, headers = {}) {
  response.writeHead(status, {
    'Content-Type': 'text/plain',
    'Content-Length': Buffer.byteLength(body),
    ...headers,
  });
  response.end(body);
}

async function bodyOf(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces);
}

// One line per entry, NAME<separator>VALUE, sorted.
function lines(entries, separator) {
  return entries.map(([name, value]) => `${name}${separator}${value}\n`).sort().join('');
}

async function respond(request, response) {
  const url = new URL(request.url, 'http://app');
  switch (`${request.method} ${url.pathname}`) {
    case 'POST /echo':
      return answer(response, 200, await bodyOf(request));
    case 'GET /':
      return answer(response, 200, `${version}\n`);
    case 'GET /slow':
      await sleep(Number(url.searchParams.get('ms')));
      return answer(response, 200, `${version}\n`);
    case 'GET /pid':
      return answer(response, 200, `${process.pid}\n`);
    case 'GET /env':
      return answer(response, 200, lines(Object.entries(process.env), '='));
    case 'GET /headers':
      return answer(response, 200, lines(Object.entries(request.headers), ': '));
    default:
      return answer(response, 404, 'not found\n');
  }
}

// What answers: the app itself, or what its BEHAVIOUR puts in its place.
function handler() {
  const started = Date.now();
  switch (behaviour) {
    case '500':
      return (_, response) => answer(response, 500, 'database password wrong\n');
    case '301':
      return (_, response) => answer(response, 301, '', { Location: '/login' });
    case 'hang':
      return () => {};
    case 'ready':
      return (request, response) =>
        Date.now() - started < seconds * 1000
          ? answer(response, 503, 'starting\n')
          : respond(request, response);
    default:
      return respond;
  }
}

function listen() {
  const server = http.createServer(handler());
  server.keepAliveTimeout = IDLE_TIMEOUT_MS;
  // A process manager that started it over a channel, as pm2 does, waits for this word.
  server.listen({ port, host: '127.0.0.1', backlog: 1024 }, () => process.send?.('ready'));
  return server;
}

// Ends once the requests in flight are answered, each with word that its connection ends too;
// close() ends the idle connections itself.
function stopGracefully(server) {
  const inFlight = new Set();
  server.prependListener('request', (_, response) => {
    inFlight.add(response);
    response.once('close', () => inFlight.delete(response));
  });

  const announceEnd = (response) => {
    if (!response.headersSent) response.setHeader('Connection', 'close');
  };
  const stop = () => {
    inFlight.forEach(announceEnd);
    server.prependListener('request', (_, response) => announceEnd(response));
    server.close(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

// Neither it nor its child can be asked to stop.
function refuseToStop() {
  const deafChild = "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000);";
  process.on('SIGTERM', () => {});
  spawn(process.execPath, ['-e', deafChild], { stdio: 'inherit' });
}

async function main() {
  switch (behaviour) {
    case 'exit':
      console.error(`${version} opens its database`);
      console.error('cannot open database: connection refused');
      process.exit(3);
      break;
    case 'deaf':
      setInterval(() => {}, 1000);
      break;
    case 'slow':
      await sleep(seconds * 1000);
      stopGracefully(listen());
      break;
    case 'hang':
      listen();
      break;
    case 'stubborn':
      refuseToStop();
      listen();
      break;
    case 'dies':
      stopGracefully(listen());
      await sleep(seconds * 1000);
      process.exit(1);
      break;
    default:
      stopGracefully(listen());
  }
}

main();
