//! Words that the BPF verifier knows nothing about.

/// A word that is really read and really written. What is kept in a map value
/// and read anew by each part of a program is unknown to the verifier each
/// time: so the paths that led there look the same to it, and it follows one.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct Volatile(u64);

impl Volatile {
    /// The value.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: a valid reference.
        unsafe { core::ptr::from_ref(&self.0).read_volatile() }
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&mut self, value: u64) {
        // SAFETY: a valid reference.
        unsafe { core::ptr::from_mut(&mut self.0).write_volatile(value) };
    }
}

/// The same number, about which the compiler knows nothing: what is compared
/// after this is compared in the program too, where the verifier looks.
#[inline(always)]
pub fn opaque(number: usize) -> usize {
    let mut number = number;
    // SAFETY: moves a register to itself, or does nothing.
    unsafe {
        #[cfg(target_arch = "bpf")]
        core::arch::asm!("{number} = {number}", number = inout(reg) number);
        #[cfg(not(target_arch = "bpf"))]
        {
            number = core::ptr::from_mut(&mut number).read_volatile();
        }
    }
    number
}
