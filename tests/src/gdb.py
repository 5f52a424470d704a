"""Runs inside gdb: writes down gdb's own backtrace of every allocation.

`config` is set before: `out` (the file to write), `enough` (a file: as soon as
it is there, nothing more is written down), `allocators` (functions to stop in),
`runs` (whether gdb starts the program, or is attached to it), and `signal` with
`interrupted`: the addresses at which the program gets it.

A backtrace is a list of addresses: where the thread stands, then return
addresses, the innermost first. gdb also shows what has no frame of its own:
inlined functions, and callers that left by a tail call, which it guesses from
debug information. Both are left out.
"""

import json
import os

import gdb

MASK = (1 << 64) - 1
WORD = 8
# So many frames may lie between an allocator's function and another.
NESTING = 4

# Where each function has its size.
SIZES = {
    "malloc": lambda reg: reg("rdi"),
    "calloc": lambda reg: reg("rdi") * reg("rsi"),
    "realloc": lambda reg: reg("rsi"),
    "reallocarray": lambda reg: reg("rsi") * reg("rdx"),
    "aligned_alloc": lambda reg: reg("rsi"),
    "memalign": lambda reg: reg("rsi"),
    "posix_memalign": lambda reg: reg("rdx"),
    "valloc": lambda reg: reg("rdi"),
}

# What the kernel emulates, at the beginning of functions.
EMULATED = ("push", "nop", "nopw", "nopl", "endbr64")

# Frames that are none: see above.
VIRTUAL = (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)

stacks = {}
# Of each thread's last call: its function, where its return address is,
# and the return address.
last_call = {}
code = {}
ranges = []


def code_ranges():
    """Executable mappings: start, end, file offset, path."""
    found = []
    with open(f"/proc/{gdb.selected_inferior().pid}/maps", encoding="utf-8") as maps:
        for line in maps:
            fields = line.split(None, 5)
            if "x" not in fields[1]:
                continue
            start, end = (int(part, 16) for part in fields[0].split("-"))
            path = fields[5].strip() if len(fields) > 5 else ""
            found.append((start, end, int(fields[2], 16), path))
    return found


def is_code(address):
    """Whether an address is executable. Remembers which file is there."""
    global ranges
    if address in code:
        return True
    for _ in range(2):
        for start, end, offset, path in ranges:
            if start <= address < end:
                code[address] = [path, address - start + offset]
                return True
        ranges = code_ranges()
    return False


def is_nested(function, sp, caller, before):
    """Whether a call is part of the one before it in this thread: jumped to
    from there, or called by it while it runs. Such a call allocates for the
    other."""
    if before is None:
        return False
    if (before[1], before[2]) == (sp, caller):
        return before[0] != function
    frame = gdb.newest_frame().older()
    for _ in range(NESTING):
        if frame is None:
            break
        if frame.pc() == before[2] and frame.read_register("rsp") == before[1] + WORD:
            return True
        frame = frame.older()
    return False


def walk():
    """The addresses, and why there are no more.

    Where there is no table, gdb takes any word for a return address: what is
    not even code is none."""
    addresses = []
    frame = gdb.newest_frame()
    while frame is not None:
        if frame.type() not in VIRTUAL:
            address = frame.pc() & MASK
            if not is_code(address):
                return addresses, "not code"
            addresses.append(address)
        reason = frame.unwind_stop_reason()
        frame = frame.older()
    return addresses, gdb.frame_stop_reason_string(reason)


class Entry(gdb.Breakpoint):
    """A breakpoint at the entry of an allocator's function.

    Where the kernel takes a probe away, even one of another process, it takes
    a breakpoint at the same address with it. Probes are on the first
    instruction if that is one of EMULATED: then the breakpoint is on the
    second. A static program shares its allocator with nobody, and gdb may
    lack a table for it: only at its first instruction can it do without."""

    all = []

    def __init__(self, function, address):
        architecture = gdb.selected_frame().architecture()
        first = architecture.disassemble(address)[0]
        name = first["asm"].split()[0]
        is_shared = gdb.solib_name(address) is not None
        if is_shared and name in EMULATED:
            address += first["length"]
        super().__init__(f"*{address:#x}", internal=True)
        self.function = function
        self.pushed = WORD if is_shared and name == "push" else 0

    def stop(self):
        if os.path.exists(config["enough"]):
            return False
        frame = gdb.newest_frame()

        def register(name):
            return int(frame.read_register(name)) & MASK

        sp = register("rsp") + self.pushed
        memory = gdb.selected_inferior().read_memory(sp, WORD)
        caller = int.from_bytes(memory.tobytes(), "little")
        size = SIZES[self.function](register) & MASK
        thread = gdb.selected_thread().ptid
        if not is_nested(self.function, sp, caller, last_call.get(thread)):
            addresses, reason = walk()
            key = (self.function, size, tuple(addresses))
            stacks.setdefault(key, [0, reason])[0] += 1
        last_call[thread] = (self.function, sp, caller)
        return False


class Interruption(gdb.Breakpoint):
    """An instruction at which the program gets a signal, once."""

    all = {}

    def __init__(self, address):
        super().__init__(f"*{address:#x}", internal=True)
        Interruption.all[address] = self


def run_on():
    """Lets the program run to its end, with the signals that are asked for."""
    gdb.execute("continue")
    while gdb.selected_inferior().pid:
        here = Interruption.all.pop(gdb.newest_frame().pc() & MASK, None)
        if here is None:
            raise gdb.GdbError("the program stopped before its end")
        here.delete()
        gdb.execute(f"signal {config['signal']}")


def place(*_):
    """Places the breakpoints as soon as the allocator is there."""
    if Entry.all:
        return
    for function in config["allocators"]:
        try:
            address = int(gdb.parse_and_eval(f"(unsigned long)&'{function}'"))
        except gdb.error:
            continue
        Entry.all.append(Entry(function, address))


def on_new_file(event):
    if event.new_objfile.filename.endswith("libc.so.6"):
        place()


def write():
    with open(config["out"], "w", encoding="utf-8") as out:
        json.dump(
            {
                "stacks": [
                    {
                        "function": function,
                        "size": size,
                        "count": count,
                        "frames": [
                            {"address": address, "path": code[address][0], "offset": code[address][1]}
                            for address in addresses
                        ],
                        "end": reason,
                    }
                    for (function, size, addresses), (count, reason) in stacks.items()
                ]
            },
            out,
        )


gdb.execute("set backtrace past-main on")
gdb.execute("set backtrace past-entry on")
gdb.execute("set backtrace limit unlimited")
gdb.execute("set print entry-values no")
gdb.execute("handle all nostop noprint pass")
gdb.execute("handle SIGTRAP SIGINT stop print nopass")
if config["runs"]:
    gdb.events.new_objfile.connect(on_new_file)
    gdb.execute("run")
    if gdb.selected_inferior().pid:
        raise gdb.GdbError("the program stopped before its end")
    if gdb.parse_and_eval("$_exitcode") != 0:
        raise gdb.GdbError("the program failed")
else:
    place()
    if not Entry.all:
        raise gdb.GdbError("no allocator")
    print("gdb is ready", flush=True)
    for address in config["interrupted"]:
        Interruption(address)
    run_on()
write()
