//! Threads that user space holds by ptrace(2), and that the kernel side stops.

/// The signal that does it: `SIGURG`, which is ignored unless the program asks
/// for it.
pub const SIGNAL: u32 = 23;

/// The thread's loader has mapped libraries, or taken some away.
pub const LOADED: u32 = 1;

/// The thread is about to call ptrace(2).
pub const PTRACE: u32 = 2;

/// Places for threads, which they have for the moment until user space has
/// taken the signal away.
pub const PLACES: u32 = 1 << 15;

/// A thread's place.
#[inline(always)]
pub const fn place_of(thread: u32) -> u32 {
    thread % PLACES
}

/// What stands there: the thread, and why it was stopped.
#[inline(always)]
pub const fn told(thread: u32, why: u32) -> u64 {
    (thread as u64) << 32 | why as u64
}

/// Why a thread was stopped, by what stands in its place; `None` if it was not.
pub const fn why(thread: u32, place: u64) -> Option<u32> {
    if place == 0 || place >> 32 != thread as u64 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    Some(place as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_tells_of_one_thread() {
        let one = 70_000;
        let other = one + PLACES;
        assert_eq!(place_of(one), place_of(other));
        assert_eq!(why(one, told(one, PTRACE)), Some(PTRACE));
        assert_eq!(why(other, told(one, PTRACE)), None);
        assert_eq!(why(0, 0), None);
    }
}
