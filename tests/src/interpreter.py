"""Says where in a file CPython's interpreter has the function that runs Python frames, by
what binutils say of the file: its symbol, and the parts of which call frame information
says that they are no functions of their own, and which it jumps into. Prints offsets in
the file: start and end, a pair a line.
"""

import re
import subprocess
import sys

FUNCTION = "_PyEval_EvalFrameDefault"


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def main(path):
    symbols = output("nm", "-D", "--print-size", path)
    start, size = re.search(rf"^(\w+) (\w+) T {FUNCTION}$", symbols, re.M).groups()
    start = int(start, 16)
    end = start + int(size, 16)
    code = output("objdump", "-d", f"--start-address={start}", f"--stop-address={end}", path)
    jumps = {int(to, 16) for to in re.findall(r"\tj\w+ +([0-9a-f]+) ", code)}
    frames = output("readelf", "--debug-dump=frames-interp", path)
    parts = {(start, end)}
    pattern = r"FDE .*pc=(\w+)\.\.(\w+)\n +LOC .*\n\w+ (\S+)"
    for first, last, frame in re.findall(pattern, frames):
        first, last = int(first, 16), int(last, 16)
        # What begins with a frame is no function.
        if frame != "rsp+8" and any(first <= jump < last for jump in jumps):
            parts.add((first, last))
    segment = r"LOAD +0x(\w+) 0x(\w+) 0x\w+ 0x(\w+) 0x\w+ R E"
    offset, address, _ = re.search(segment, output("readelf", "-lW", path)).groups()
    shift = int(offset, 16) - int(address, 16)
    for first, last in sorted(parts):
        print(first + shift, last + shift)


main(sys.argv[1])
