// Prints what an ecosystem file says, as JSON, in the last line of all that is printed. Understood by Node 12, too.

'use strict';

const fs = require('fs');
const { pathToFileURL } = require('url');
const vm = require('vm');

const file = process.argv[1];

// As pm2 takes JSON: an expression of JavaScript, so with comments.
function expression() {
  return vm.runInNewContext(`(${fs.readFileSync(file, 'utf8')}\n)`, {}, { filename: file });
}

async function exported() {
  const found = await import(pathToFileURL(file).href);
  return found.default || found;
}

async function main() {
  const said = file.endsWith('.json') ? expression() : await exported();
  // A variable taken from an environment that lacks it is undefined, which JSON would leave out.
  const json = JSON.stringify(said, (_, value) => (value === undefined ? null : value));
  process.stdout.write(`\n${json}\n`, () => process.exit(0));
}

main().catch((error) => {
  const [, line] = String(error && error.stack).split(`${file}:`);
  console.error(line ? `line ${parseInt(line, 10)}: ${error}` : String(error));
  process.exit(1);
});
