//! The names of the x86-64 integer registers and their parts.

use tracer_ebpf::operand::Register;

/// A register's part that a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The whole register.
    pub register: Register,
    /// Bytes of the part.
    pub bytes: u8,
    /// Bits below it.
    pub shift: u8,
}

/// Registers that have a name of their own for each part, with the number
/// that `pt_regs` has for them: 64, 32, 16 and 8 bits.
const NAMED: [(u8, [&str; 4]); 8] = [
    (10, ["rax", "eax", "ax", "al"]),
    (5, ["rbx", "ebx", "bx", "bl"]),
    (11, ["rcx", "ecx", "cx", "cl"]),
    (12, ["rdx", "edx", "dx", "dl"]),
    (13, ["rsi", "esi", "si", "sil"]),
    (14, ["rdi", "edi", "di", "dil"]),
    (4, ["rbp", "ebp", "bp", "bpl"]),
    (19, ["rsp", "esp", "sp", "spl"]),
];

/// Second bytes.
const SECOND: [(u8, &str); 4] = [(10, "ah"), (5, "bh"), (11, "ch"), (12, "dh")];

/// r8 to r15 in `pt_regs`.
const NUMBERED: [u8; 8] = [9, 8, 7, 6, 3, 2, 1, 0];

/// The part that a name (without `%`) stands for.
pub fn find(name: &str) -> Option<Part> {
    if name == "rip" {
        return part(16, 8, 0);
    }
    for (word, names) in NAMED {
        if let Some(at) = names.iter().position(|known| *known == name) {
            return part(word, [8, 4, 2, 1][at], 0);
        }
    }
    if let Some((word, _)) = SECOND.iter().find(|(_, known)| *known == name) {
        return part(*word, 1, 8);
    }
    numbered(name)
}

/// `r8` to `r15`, with `d`, `w` or `b` (`l`, in Intel's manuals).
fn numbered(name: &str) -> Option<Part> {
    let rest = name.strip_prefix('r')?;
    let digits = rest.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let bytes = match &rest[digits.len()..] {
        "" => 8,
        "d" => 4,
        "w" => 2,
        "b" | "l" => 1,
        _ => return None,
    };
    if digits.starts_with('0') || digits.starts_with('+') {
        return None;
    }
    let number: usize = digits.parse().ok()?;
    part(*NUMBERED.get(number.checked_sub(8)?)?, bytes, 0)
}

fn part(word: u8, bytes: u8, shift: u8) -> Option<Part> {
    Some(Part {
        register: Register::from_word(word)?,
        bytes,
        shift,
    })
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// libc's `user_regs_struct` begins as `pt_regs` does.
    #[test]
    fn every_register_is_where_the_kernel_has_it() {
        type Kernel = libc::user_regs_struct;
        for (name, offset) in [
            ("r15", offset_of!(Kernel, r15)),
            ("r14", offset_of!(Kernel, r14)),
            ("r13", offset_of!(Kernel, r13)),
            ("r12", offset_of!(Kernel, r12)),
            ("rbp", offset_of!(Kernel, rbp)),
            ("rbx", offset_of!(Kernel, rbx)),
            ("r11", offset_of!(Kernel, r11)),
            ("r10", offset_of!(Kernel, r10)),
            ("r9", offset_of!(Kernel, r9)),
            ("r8", offset_of!(Kernel, r8)),
            ("rax", offset_of!(Kernel, rax)),
            ("rcx", offset_of!(Kernel, rcx)),
            ("rdx", offset_of!(Kernel, rdx)),
            ("rsi", offset_of!(Kernel, rsi)),
            ("rdi", offset_of!(Kernel, rdi)),
            ("rip", offset_of!(Kernel, rip)),
            ("rsp", offset_of!(Kernel, rsp)),
        ] {
            let found = find(name).unwrap();
            assert_eq!(found.register.offset(), offset as u64, "{name}");
            assert_eq!((found.bytes, found.shift), (8, 0), "{name}");
        }
    }

    #[test]
    fn parts_of_registers() {
        for (name, whole, bytes, shift) in [
            ("eax", "rax", 4, 0),
            ("ch", "rcx", 1, 8),
            ("sil", "rsi", 1, 0),
            ("bpl", "rbp", 1, 0),
            ("r8d", "r8", 4, 0),
            ("r9w", "r9", 2, 0),
            ("r10b", "r10", 1, 0),
            ("r15l", "r15", 1, 0),
        ] {
            let found = find(name).unwrap();
            assert_eq!(found.register, find(whole).unwrap().register, "{name}");
            assert_eq!((found.bytes, found.shift), (bytes, shift), "{name}");
        }
    }

    #[test]
    fn what_is_no_integer_register() {
        for name in [
            "", "r", "r7", "r16", "r08", "r+9", "r8q", "rbpl", "sih", "xmm0", "st", "fs", "eip",
            "RAX",
        ] {
            assert_eq!(find(name), None, "{name}");
        }
    }
}
