// Labelled behaviours in JavaScript: see verdicts.h for what a program of the suite does,
// and labels.json for what each of these is. Started with --expose-gc.
'use strict';
const zlib = require('zlib');

const BUFFERS = 'NodeArrayBufferAllocator::Allocate(';
let held = 0;
let now = 0;
let step = 0;
let seed = 1;

function fraction() {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) / (1 << 24);
}

/** How many come in this tick of so many a second, by chance. */
function arrivals(rate) {
    const mean = rate * step;
    const trials = 8 + 2 * Math.floor(mean);
    let come = 0;
    for (let trial = 0; trial < trials; trial++) come += fraction() < mean / trials ? 1 : 0;
    return come;
}

function take(size) {
    held += size;
    return new ArrayBuffer(size);
}

/** Collects garbage each so many seconds; what is live then is told. */
function collects(period, live) {
    let end = period;
    return () => {
        if (now < end) return;
        end += period;
        gc();
        held = live();
    };
}

function sizes(blocks) {
    let sum = 0;
    for (const block of blocks) sum += block.byteLength;
    return sum;
}

const kept = [];
const MODES = {
    keep_buffers: { tick() {
        for (let come = arrivals(20); come > 0; come--) kept.push(take(2003));
    } },
    remember_all: { map: new Map(), key: 0, tick() {
        for (let come = arrivals(3); come > 0; come--) this.map.set(this.key++, take(4001));
    } },
    // Each has a buffer for what it writes.
    keep_deflaters: { function: 'CreateUnsafeArrayBuffer(', tick() {
        for (let come = arrivals(1.5); come > 0; come--) {
            kept.push(zlib.createDeflate({ chunkSize: 16384 }));
            held += 16384;
        }
    } },
    stop_listening: { tick() {
        if (now < 8) for (let come = arrivals(30); come > 0; come--) kept.push(take(1801));
    } },
    newest_entries: { map: new Map(), key: 0, tick() {
        for (let come = arrivals(30); come > 0; come--) {
            this.map.set(this.key++, take(1709));
            if (this.map.size > 200) this.map.delete(this.map.keys().next().value);
        }
        this.collect();
    } },
    drop_at_once: { tick() {
        for (let come = arrivals(30); come > 0; come--) take(2011);
        this.collect();
    } },
    drain_queue: { queue: [], tick() {
        for (let come = arrivals(30); come > 0; come--) this.queue.push(take(1601));
        const lags = now % 8 < 4;
        this.queue.splice(0, arrivals(lags ? 8 : 80));
        this.collect();
    } },
    live_sessions: { sessions: new Map(), key: 0, tick() {
        for (const [key, session] of this.sessions) {
            if (session.end <= now) this.sessions.delete(key);
        }
        for (let come = arrivals(25); come > 0; come--) {
            const end = now + 3 * (fraction() + fraction());
            this.sessions.set(this.key++, { end, block: take(1501) });
        }
        this.collect();
    } },
};
MODES.newest_entries.collect = collects(2, () => sizes(MODES.newest_entries.map.values()));
MODES.drop_at_once.collect = collects(5, () => 0);
MODES.drain_queue.collect = collects(2, () => sizes(MODES.drain_queue.queue));
MODES.live_sessions.collect = collects(1.5, () =>
    sizes([...MODES.live_sessions.sessions.values()].map((session) => session.block)));

const mode = MODES[process.argv[2]];
const told = mode.function || BUFFERS;
console.log(`${process.pid} ready`);
process.stdin.on('end', () => process.exit(0));
process.stdin.once('data', () => {
    const begin = performance.now();
    setInterval(() => {
        const time = (performance.now() - begin) / 1000;
        step = time - now;
        now = time;
        mode.tick();
    }, 10);
    setInterval(() => {
        console.log(`live ${(Date.now() / 1000).toFixed(6)} ${told} ${held}`);
    }, 1000);
});
