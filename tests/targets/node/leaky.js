// A service of buffers and texts that keeps an array buffer of each fiftieth request: for
// `cargo xtask bench answers`. See `leaky.h` for what it prints.
'use strict';
const zlib = require('zlib');

const REQUESTS = 1000;
const LEAK = 8009;
const kept = [];
let leaked = 0;
let number = 0;
let checked = 0;

function tellTruth() {
    process.stdout.write(`truth ${(Date.now() / 1000).toFixed(6)} ${leaked}\n`);
}

function leak() {
    kept.push(new ArrayBuffer(LEAK));
    leaked += LEAK;
}

function request() {
    number++;
    const rows = [];
    for (let row = 0; row < 30; row++) rows.push({ number, row });
    const body = Buffer.from(JSON.stringify(rows).repeat(8));
    if (number % 20 === 0) checked += zlib.deflateSync(body).length;
    checked += Buffer.allocUnsafeSlow(20011).length;
    if (number % 50 === 0) leak();
}

let allowed = 0;
let last = performance.now();
let told = 0;
process.stdin.on('end', () => process.exit(0)).resume();
console.log(`pid ${process.pid}\nready`);
tellTruth();
setInterval(() => {
    const now = performance.now();
    const due = now - told >= 20 || now - last >= 6;
    allowed = Math.min(allowed + (now - last) * REQUESTS / 1000, REQUESTS / 20);
    last = now;
    if (due) tellTruth();
    for (; allowed >= 1; allowed--) request();
    if (due) {
        tellTruth();
        told = now;
    }
}, 2);
