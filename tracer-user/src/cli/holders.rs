//! What `--holders`, `--jfr` and `--check-lost` do.

/// The long help of `--holders`.
pub(super) const HOLDERS: &str = "\
At the end, while the processes live, search their memory for who holds live blocks: of the sites \
that hold most, 64 of the oldest blocks each. Nothing is stopped, and no page is touched that is \
not in memory.

A chain begins with a variable, a thread-local, a thread's stack or a mapping, and goes on by the \
blocks in between. A block that no such chain leads to, in two looks, is lost: nothing can free it \
any more. That is what a leak detector within the program would find, but for pointers that are in \
a register alone.

With --overhead, where frees are missed, no block is called lost: it may have been freed. In `top` the key \
h makes the same search at once, while tracing goes on.

Pointers to the middle of a block count, as do those in memory that a live block has and does not \
use. Pointers that are xored or compressed are not seen.

    sudo unfreed record -p 1234 --duration 60s --holders";

/// The long help of `--jfr`.
pub(super) const JFR: &str = "\
With --holders, have a JVM's own flight recorder (JFR) tell who holds growing classes of which that \
cannot be found from outside: where ZGC moves objects at any time, for example. JDK 8 (from \
8u262 on), 11 and later have one.

During the run it notes some of the objects that are allocated, 256 at most, and more likely large ones; \
it tells of those that lived through a collection. Of objects from before the run it knows nothing. At the end, and only if something that grows has no holder yet, \
THE JVM STOPS ALL ITS THREADS and searches its heap for the ways to them: fractions of a second in small \
heaps, many seconds in large ones. The report says how long that was. It is not asked where its heap has \
more than 1.7 million objects for each GiB of -Xmx: then HotSpot's search may end the JVM.

A recording of yours goes on as it is, with these events in it. Afterwards the recorder stays ready in \
the JVM until that ends: 30 to 50 MiB of its memory and three threads.

    sudo unfreed record -p 1234 --duration 10m --java-heap --holders --jfr";

/// The long help of `--check-lost`.
pub(super) const CHECK_LOST: &str = "\
When the program ends, look which live blocks nothing points to any more; exit with status 3 if there \
are any, or if that could not be found out. It is --holders, of all blocks and at the one moment when \
the program has called exit, its destructors have run, and its memory is there still: it waits there, for \
a second or so.

That is what a leak sanitizer finds, and what valgrind calls definitely and indirectly lost; but the \
program is neither built for it nor slowed down by more than the tracing. A program that a signal \
ends is not looked at.

    sudo unfreed run --check-lost -- ./tests --all";
