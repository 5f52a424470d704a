# Python functions that allocate by the same C call, each a size of its own that no other has.
# Prints `PID ready`; `work` does it and answers `stacks`, with what Python itself says of each
# call path (whose size nobody else has), innermost first: size, count, and of each function its name, file and first line.
# It ends with standard input. Runs on Python 3.8 and later.
import asyncio
import ctypes
import functools
import json
import os
import sys
import threading

c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.malloc.argtypes = [ctypes.c_size_t]
# The same, with the interpreter's lock.
locked = ctypes.PyDLL(None)
locked.malloc.restype = ctypes.c_void_p
locked.malloc.argtypes = [ctypes.c_size_t]

seen = {}
kept = []
lock = threading.Lock()


def say(size, frame):
    path = []
    while frame is not None:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        path.append((name, code.co_filename, code.co_firstlineno))
        frame = frame.f_back
    with lock:
        key = (size, tuple(path))
        seen[key] = seen.get(key, 0) + 1


def take(size):
    say(size, sys._getframe())
    return c.malloc(size)


def take_locked(size):
    say(size, sys._getframe())
    return locked.malloc(size)


def handle():
    take(1009)


def other():
    take(2003)


class Cache:
    kept = []

    def put(self):
        say(50021, sys._getframe())
        # The buffer has a zero at its end.
        self.kept.append(bytearray(50020))

    @classmethod
    def make(cls):
        take(3001)

    @property
    def size(self):
        return take(3011)

    def __del__(self):
        take(3019)


def generate():
    for _ in range(5):
        take(5003)
        yield


async def inner():
    take(7001)
    await asyncio.sleep(0)


async def again():
    await asyncio.sleep(0)
    take(7013)


async def outer():
    await inner()
    await again()


def recurse(depth):
    if depth:
        recurse(depth - 1)
    else:
        take(9001)


def nested():
    def inside():
        take(9011)

    inside()
    (lambda: take(9013))()


def compare(one, two):
    take(11003)
    return 0


COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(compare)


def sort():
    array = (ctypes.c_int * 2)(1, 2)
    c.qsort(array, 2, 4, COMPARE)


@functools.lru_cache(maxsize=None)
def cached(number):
    take(12007)


def in_thread():
    for _ in range(100):
        take(13001)
        take_locked(13003)


def in_class():
    class Body:
        kept = take(14009)


def in_exec():
    # Code that is gone right after has no name.
    kept.append(compile("take(15013)", "<made>", "exec"))
    exec(kept[-1], {"take": take})


def work():
    for _ in range(7):
        handle()
    for _ in range(11):
        other()
    cache = Cache()
    for _ in range(13):
        cache.put()
    Cache.make()
    cache.size
    del cache
    list(generate())
    asyncio.run(outer())
    recurse(6)
    nested()
    sort()
    for number in range(3):
        cached(number)
    in_class()
    [take(16001) for _ in range(3)]
    in_exec()
    threads = [threading.Thread(target=in_thread) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def forked():
    # The child ends with the parent.
    end, keeps = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(keeps)
        handle()
        os.write(1, b"stacks []\n")
        os.read(end, 1)
        os._exit(0)
    os.close(end)
    kept.append(keeps)


def main():
    # What it needs once is there before anybody looks.
    asyncio.run(asyncio.sleep(0))
    sys.stdout.write("%d ready\n" % os.getpid())
    sys.stdout.flush()
    for line in sys.stdin:
        if line == "work\n":
            work()
            paths = [(size, count, path) for (size, path), count in seen.items()]
            sys.stdout.write("stacks %s\n" % json.dumps(paths))
        elif line == "fork\n":
            forked()
        else:
            sys.stdout.write("no command\n")
        sys.stdout.flush()


main()
