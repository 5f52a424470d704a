# A service of texts and tables that keeps a buffer of each hundredth request: for `cargo
# xtask bench answers`. See `leaky.h` for what it prints.
import json
import os
import select
import sys
import time

REQUESTS = 1500
LEAK = 5003
kept = []
leaked = 0
cache = [b""] * 257


def tell_truth():
    sys.stdout.write("truth %.6f %d\n" % (time.time(), leaked))
    sys.stdout.flush()


def leak():
    # A buffer is a block of its own; what describes it is Python's own business.
    global leaked
    buffer = bytearray(LEAK)
    leaked += buffer.__alloc__()
    kept.append(buffer)


def request(number):
    rows = [{"number": number, "row": row} for row in range(20)]
    body = json.dumps(rows).encode()
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + body
    cache[number * 7919 % len(cache)] = answer * 3
    if number % 100 == 0:
        leak()


def main():
    print("pid %d\nready" % os.getpid(), flush=True)
    tell_truth()
    number, allowed, last, told = 0, 0.0, time.monotonic(), 0.0
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        now = time.monotonic()
        due = now - told >= 0.02 or now - last >= 0.006
        allowed = min(allowed + (now - last) * REQUESTS, REQUESTS / 20)
        last = now
        if due:
            tell_truth()
        while allowed >= 1:
            allowed -= 1
            number += 1
            request(number)
        if due:
            tell_truth()
            told = now


main()
