"""Becomes a program in a container: the root is an overlay file system above the files of an
image, and both are on file systems that nobody else sees.

container.py FOLDER PROGRAM

FOLDER has the image's files, as `image`; PROGRAM is a path in the image. Namespaces are made
before.
"""

import ctypes
import os
import shutil
import sys

MS_REC, MS_PRIVATE, MNT_DETACH = 16384, 1 << 18, 2
SYS_PIVOT_ROOT = 155

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(kind, target, flags=0, options=None):
    text = options.encode() if options else None
    check(libc.mount(kind.encode(), target.encode(), kind.encode(), flags, text))


def main():
    folder, program = sys.argv[1:]
    mount("none", "/", MS_REC | MS_PRIVATE)
    room = os.path.join(folder, "room")
    mount("tmpfs", room)
    lower, upper, work, root = (os.path.join(room, name) for name in ("lower", "upper", "work", "root"))
    shutil.copytree(os.path.join(folder, "image"), lower)
    for path in (upper, work, root):
        os.mkdir(path)
    mount("overlay", root, 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
    os.mkdir(os.path.join(root, "tmp"))
    # The old root is put below the new one, and then taken away.
    os.chdir(root)
    check(libc.syscall(SYS_PIVOT_ROOT, b".", b"."))
    check(libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    os.execv(program, [program])


main()
