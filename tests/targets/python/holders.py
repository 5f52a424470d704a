# Blocks of Python's and of a library's, held in every way that a module has, and some that nobody
# holds. Each kind has a size of its own, and 64 blocks. Prints `PID ready`; `work` makes them and
# answers `done`; it ends with standard input.
import ctypes
import os
import sys

COUNT = 64
IN_LIST = 5003
IN_DICT = 7013
BY_OBJECT = 9001
DROPPED = 11003
AS_NUMBER = 13007

c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.malloc.argtypes = [ctypes.c_size_t]

kept = []
by_name = {}
pointers = []
numbers = []


def work():
    for number in range(COUNT):
        # A buffer beside its object, which is in an arena of Python's.
        kept.append(bytearray(IN_LIST - 1))
        # An object that is a block itself.
        by_name["name %d" % number] = bytes(IN_DICT - sys.getsizeof(b""))
        # A library's block, and an object with its address.
        pointers.append(ctypes.c_void_p(c.malloc(BY_OBJECT)))
        # Another one, whose address Python has as a number: in digits of 30 bits, no pointer.
        numbers.append(c.malloc(AS_NUMBER))
        c.malloc(DROPPED)


sys.stdout.write("%d ready\n" % os.getpid())
sys.stdout.flush()
for line in sys.stdin:
    if line == "work\n":
        work()
        sys.stdout.write("done\n")
        sys.stdout.flush()
