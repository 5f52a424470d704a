// JavaScript functions that allocate by the same C++ function, each a size of its own that no
// other has. Prints `PID ready`; `work` does it and answers `stacks`, with what V8 itself says
// of each call path, innermost first: size, count, and of each function its name, file and the
// line where it begins. `tier` answers which of V8's compilers made `take`. It ends with
// standard input. Takes --expose-gc and --allow-natives-syntax.
'use strict';
const { Worker, isMainThread, parentPort } = require('node:worker_threads');

const kept = [];
const seen = new Map();

Error.stackTraceLimit = Infinity;
Error.prepareStackTrace = (_, sites) => sites;

function say(size) {
  const holder = {};
  Error.captureStackTrace(holder, say);
  // V8's own functions have no script; who awaits is on no stack.
  const sites = holder.stack.filter((site) => site.getLineNumber() && !site.isAsync());
  // By a key that is computed a closure has a name, but not the function; `eval` is what V8
  // calls code of a text.
  const name = (site) =>
    (site.getFunctionName() || '').replace(/^(\[.*|eval$)/, '') || '(anonymous)';
  const path = sites.map((site) => [
    name(site),
    (site.getFileName() || '').replace(/^file:\/\//, ''),
    site.getEnclosingLineNumber(),
  ]);
  const key = JSON.stringify([size, path]);
  seen.set(key, (seen.get(key) || 0) + 1);
}

function take(size) {
  say(size);
  kept.push(Buffer.allocUnsafeSlow(size));
}

function handle() { take(100003); }

function other() {
  take(100019);
}

class Cache {
  put() { take(100043); }
  static make() { take(100049); }
  get size() { return take(100057); }
  constructor() { take(100069); }
}

const arrow = () => take(100103);
const object = { method() { take(100109); }, assigned: function () { take(100129); } };

function closure(size) {
  return function inner() { take(size); };
}

async function outer() {
  take(100151);
  await null;
  take(100153);
  await inside();
}

async function inside() {
  await null;
  take(100169);
}

function* generate() {
  for (let i = 0; i < 5; i++) {
    take(100183);
    yield i;
  }
}

function recurse(depth) {
  if (depth) recurse(depth - 1);
  else take(100189);
}

function fail() {
  try {
    throw new Error('x');
  } catch {
    take(100193);
  }
}

// Names of local variables that closures use stand before its own name.
function withLocals() {
  let one = 1, two = 2, three = 3;
  function named() { return one + two + three++; }
  take(100207 + 0 * named());
}

function ünïcode() { take(100213); }

const evaluated = eval('(function made() {\n take(100237);\n})');
const constructed = new Function('take', 'take(100267)');

function later() {
  return new Promise((resolve) => setTimeout(function timer() {
    take(100271);
    resolve();
  }, 1));
}

async function work() {
  const inner = closure(100279), cache = new Cache();
  for (let i = 0; i < 30; i++) {
    // What is in memory moves.
    if (i % 10 === 9) gc();
    handle();
    if (i % 2) other();
    cache.put();
    Cache.make();
    cache.size;
    arrow();
    object.method();
    object.assigned();
    inner();
    recurse(5);
    fail();
    withLocals();
    ünïcode();
    evaluated();
    constructed(take);
  }
  [1, 2, 3].forEach((_) => take(100291));
  [3, 1, 2].sort(function compare(a, b) { take(100297); return a - b; });
  'aaa'.replace(/a/g, () => take(100313));
  JSON.parse('[1,2]', function revive(key, value) { take(100333); return value; });
  for (const _ of generate());
  new (class extends Cache { constructor() { super(); take(100343); } })();
  Reflect.apply(handle, null, []);
  globalThis.take = take;
  (await import('./module.mjs')).exported();
  await outer();
  await later();
}

const answer = () => JSON.stringify([...seen].map(([key, count]) => {
  const [size, path] = JSON.parse(key);
  return [size, count, path];
}));

const TIERS = ['Ignition', 'Sparkplug', 'Maglev', 'Turbofan'];

function tier() {
  const is = (name) => {
    try {
      return new Function('f', `return %ActiveTierIs${name}(f)`)(take);
    } catch {
      return false;
    }
  };
  return TIERS.filter(is).join(' ');
}

if (isMainThread) {
  let rest = '';
  process.stdin.setEncoding('utf8');
  process.stdin.on('data', async (text) => {
    rest += text;
    for (let end; (end = rest.indexOf('\n')) >= 0;) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 1);
      if (line === 'work') {
        await work();
        console.log(`stacks ${answer()}`);
      } else if (line === 'worker') {
        const worker = new Worker(__filename);
        worker.on('message', (text) => console.log(`stacks ${text}`));
      } else if (line === 'tier') {
        console.log(`tier ${tier()}`);
      } else {
        console.log('no command');
      }
    }
  });
  process.stdin.on('end', () => process.exit());
  console.log(`${process.pid} ready`);
} else {
  handle();
  other();
  parentPort.postMessage(answer());
  // It keeps what it has until the process ends.
  parentPort.on('message', () => {});
}
