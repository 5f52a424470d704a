"""Runs a program as systemd would under the settings of a unit that can be had without systemd:
its bounding set, its filter of system calls, its limits, and what it sees of the file system.

confined.py UNIT STATE BINARY ARGUMENT...
"""

import ctypes
import errno
import os
import re
import resource
import subprocess
import sys

import seccomp

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS = 0x20000
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24
CAPABILITIES = "/usr/include/linux/capability.h"

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source, target, kind, flags):
    check(libc.mount(source.encode(), target.encode(), kind, flags, None))


def settings(unit):
    found = {}
    for line in open(unit):
        name, equals, value = line.strip().partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def file_system(unit, writable):
    """ProtectSystem=strict, ProtectHome=yes, PrivateTmp=yes, ProtectKernelTunables=yes."""
    assert unit["ProtectSystem"] == ["strict"] and unit["ProtectHome"] == ["yes"]
    assert unit["PrivateTmp"] == ["yes"] and unit["ProtectKernelTunables"] == ["yes"]
    check(libc.unshare(CLONE_NEWNS))
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    kept = os.open(writable, os.O_PATH)
    points = [line.split()[4] for line in open("/proc/self/mountinfo")]
    for point in dict.fromkeys(points):
        if point == "/proc" or point.startswith("/dev"):
            continue
        try:
            mount("none", point, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
        except OSError as error:
            # Locked as it is, or hidden below another.
            if error.errno not in (errno.EPERM, errno.ENOENT, errno.EINVAL, errno.EACCES):
                raise
    for hidden in ("/tmp", "/var/tmp", "/home", "/root"):
        mount("tmpfs", hidden, b"tmpfs", 0)
    os.makedirs("/tmp/state")
    mount(f"/proc/self/fd/{kept}", "/tmp/state", None, MS_BIND)
    mount("none", "/tmp/state", None, MS_REMOUNT | MS_BIND)
    os.close(kept)


def bounding_set(unit):
    (text,) = unit["CapabilityBoundingSet"]
    defined = re.findall(r"^#define (CAP_\w+)\s+(\d+)$", open(CAPABILITIES).read(), re.M)
    numbers = {name: int(number) for name, number in defined}
    kept = {numbers[name] for name in text.split()}
    for number in set(numbers.values()) - kept:
        # One that was not given is not there to be dropped.
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)


def calls(names):
    """The system calls of names, of which those with an @ are sets of systemd's."""
    for name in names:
        if not name.startswith("@"):
            yield name
            continue
        text = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True
        ).stdout
        members = [line.strip() for line in text.splitlines()[1:]]
        yield from calls(member for member in members if member and not member.startswith("#"))


def system_calls(unit):
    allowed = set(calls(["@default"]))
    for text in unit["SystemCallFilter"]:
        names = set(calls(text.lstrip("~").split()))
        allowed = allowed - names if text.startswith("~") else allowed | names
    # systemd starts programs by this one.
    chosen = seccomp.SyscallFilter(defaction=seccomp.ERRNO(errno.EPERM))
    for name in sorted(allowed | {"execve"}):
        try:
            chosen.add_rule(seccomp.ALLOW, name)
        except (OSError, RuntimeError):
            pass  # Another architecture's.
    chosen.load()


def limits(unit):
    for name, which in (("LimitNOFILE", resource.RLIMIT_NOFILE),):
        (text,) = unit[name]
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (min(int(text), hard),) * 2)


def main():
    path, state, program, *arguments = sys.argv[1:]
    unit = settings(path)
    binary = os.open(program, os.O_PATH)
    os.set_inheritable(binary, True)
    file_system(unit, state)
    limits(unit)
    bounding_set(unit)
    assert unit["NoNewPrivileges"] == ["yes"]
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    system_calls(unit)
    os.execv(f"/proc/self/fd/{binary}", [program, *arguments])


main()
