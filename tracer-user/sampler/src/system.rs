//! System calls, without the C library: it may be on its way to us.

use core::arch::asm;

const GETPID: usize = 39;
const GETRANDOM: usize = 318;

fn call(number: usize, first: usize, second: usize, third: usize) -> usize {
    let result;
    // SAFETY: the calls below write to nothing but what they are given.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The process id.
pub fn process() -> usize {
    call(GETPID, 0, 0, 0)
}

/// A number that nobody can foresee, as far as the kernel has one.
pub fn random() -> u64 {
    let mut word = 0_u64;
    const DO_NOT_WAIT: usize = 1;
    call(GETRANDOM, (&raw mut word).addr(), 8, DO_NOT_WAIT);
    // SAFETY: it reads the processor's clock.
    word ^ unsafe { core::arch::x86_64::_rdtsc() }
}

/// Where a link leads: how many bytes of `name` were written; none if it leads nowhere.
pub fn read_link(path: &[u8; 64], name: &mut [u8; 64]) -> usize {
    const READLINK: usize = 89;
    let read = call(
        READLINK,
        path.as_ptr().addr(),
        name.as_mut_ptr().addr(),
        name.len(),
    );
    // The kernel's errors are negative.
    if read > name.len() { 0 } else { read }
}

/// Whether a descriptor is open, and is to stay so in what is executed.
pub fn stays_open(descriptor: usize) -> bool {
    const FCNTL: usize = 72;
    const F_GETFD: usize = 1;
    call(FCNTL, descriptor, F_GETFD, 0) == 0
}

/// Ends the program at once.
#[cfg(preload)]
pub fn trap() -> ! {
    // SAFETY: an instruction that is none, which never returns.
    unsafe { asm!("ud2", options(noreturn)) }
}
