# Labelled behaviours in Python: see verdicts.h for what a program of the suite does, and
# labels.json for what each of these is. What is judged is by which function of the
# interpreter or of a library the memory comes: PyByteArray_Resize is told as the bytes of
# byte arrays, others as a number of objects times what one was measured to take.
import collections
import functools
import gc
import os
import random
import select
import sys
import time
import xml.parsers.expat
import zlib

BYTES = "PyByteArray_Resize"
random.seed(1)


class Mode:
    function = BYTES

    def __init__(self):
        self.step = self.now = 0.0
        self.held = 0
        self.kept = collections.deque()

    def arrivals(self, rate):
        """How many come in this tick of so many a second, by chance."""
        mean = rate * self.step
        trials = 8 + 2 * int(mean)
        return sum(random.random() < mean / trials for _ in range(trials))

    def push(self, size):
        self.kept.append(self.take(size))

    def take(self, size):
        block = bytearray(size)
        self.held += block.__alloc__()
        return block

    def pop(self):
        self.held -= self.kept.popleft().__alloc__()


class KeepAll(Mode):
    def tick(self):
        for _ in range(self.arrivals(20)):
            self.push(1900)


class KeepBursts(Mode):
    """A request in a while keeps a lot."""

    def tick(self):
        if self.arrivals(0.3):
            for _ in range(random.randint(10, 50)):
                self.push(1300)


class KeepCompressors(Mode):
    function = "deflateInit2_"
    # What zlib allocates for this window and this level.
    SIZE = 8512

    def tick(self):
        for _ in range(self.arrivals(2)):
            self.kept.append(zlib.compressobj(6, zlib.DEFLATED, -9, 1))
            self.held += self.SIZE


class NewestEntries(Mode):
    def __init__(self):
        super().__init__()
        self.entries = collections.OrderedDict()
        self.key = 0

    def tick(self):
        for _ in range(self.arrivals(40)):
            if len(self.entries) == 250:
                self.held -= self.entries.popitem(last=False)[1].__alloc__()
            self.key += 1
            self.entries[self.key] = self.take(1700)


class Memoize(Mode):
    """Of 300 arguments all were asked for some day."""

    def __init__(self):
        super().__init__()
        self.answer = functools.lru_cache(maxsize=None)(lambda argument: self.take(1500))

    def tick(self):
        for _ in range(self.arrivals(60)):
            self.answer(random.randrange(300))


class GatherRows(Mode):
    end = 7.0

    def tick(self):
        if self.now >= self.end:
            self.end += 7.0
            self.kept.clear()
            self.held = 0
        for _ in range(self.arrivals(40)):
            self.push(1400)


class Cycle:
    def __init__(self, block):
        self.itself, self.block = self, block


class CollectCycles(Mode):
    """Garbage that only the collector frees, each five seconds."""

    end = 5.0

    def __init__(self):
        super().__init__()
        gc.disable()

    def tick(self):
        if self.now >= self.end:
            self.end += 5.0
            gc.collect()
            self.held = 0
        for _ in range(self.arrivals(30)):
            Cycle(self.take(1600))


class LiveSessions(Mode):
    def __init__(self):
        super().__init__()
        self.sessions = []

    def tick(self):
        live = [it for it in self.sessions if it[0] > self.now]
        ended = [it for it in self.sessions if it[0] <= self.now]
        self.held -= sum(block.__alloc__() for _, block in ended)
        self.sessions = live
        for _ in range(self.arrivals(25)):
            end = self.now + 3 * (random.random() + random.random())
            self.sessions.append((end, self.take(1500)))


class RoomyCache(Mode):
    """It has room for 200 s."""

    def tick(self):
        for _ in range(self.arrivals(10)):
            if len(self.kept) == 2000:
                self.pop()
            self.push(1600)


class ParseRequests(Mode):
    function = "XML_GetBuffer"

    def tick(self):
        for _ in range(self.arrivals(20)):
            parser = xml.parsers.expat.ParserCreate()
            parser.Parse(b"<request><item>1</item></request>", True)


MODES = {
    "keep_all": KeepAll,
    "keep_bursts": KeepBursts,
    "keep_compressors": KeepCompressors,
    "newest_entries": NewestEntries,
    "memoize": Memoize,
    "gather_rows": GatherRows,
    "collect_cycles": CollectCycles,
    "live_sessions": LiveSessions,
    "roomy_cache": RoomyCache,
    "parse_requests": ParseRequests,
}


def main():
    mode = MODES[sys.argv[1]]()
    print("%d ready" % os.getpid(), flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    told = 0.0
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        now = time.monotonic() - begin
        mode.step, mode.now = now - mode.now, now
        mode.tick()
        if now - told >= 1:
            told = now
            print("live %.6f %s %d" % (time.time(), mode.function, mode.held), flush=True)


main()
