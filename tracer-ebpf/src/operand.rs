//! Where a USDT probe's argument is when the probe is hit: a constant, a
//! register, or memory that registers lead to. Pure, so that tests and the
//! kernel run the same.

/// A register, by its place in the kernel's `pt_regs` of x86-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Register(u8);

/// How many words `pt_regs` has.
const WORDS: u8 = 21;

/// What stands for no register.
const NONE: u8 = u8::MAX;

impl Register {
    /// The instruction pointer.
    pub const RIP: Self = Self(16);

    /// The register whose value is the word of that number in `pt_regs`.
    pub const fn from_word(word: u8) -> Option<Self> {
        if word < WORDS { Some(Self(word)) } else { None }
    }

    /// Where its value is in `pt_regs`, bytes.
    #[inline(always)]
    pub const fn offset(self) -> u64 {
        self.0 as u64 * 8
    }
}

/// How many bytes an argument has, and whether it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Width {
    bytes: u8,
    signed: bool,
}

impl Width {
    /// `None` unless there are 1, 2, 4 or 8 bytes.
    pub const fn new(bytes: u8, signed: bool) -> Option<Self> {
        match bytes {
            1 | 2 | 4 | 8 => Some(Self { bytes, signed }),
            _ => None,
        }
    }

    /// Bytes.
    pub const fn bytes(self) -> u8 {
        self.bytes
    }

    /// Whether the argument is signed.
    pub const fn is_signed(self) -> bool {
        self.signed
    }
}

/// What a probe's thread has at hand when it is hit.
pub trait Machine {
    /// A register's value.
    fn register(&self, register: Register) -> Option<u64>;

    /// The first `bytes` (1 to 8) bytes at an address, the others zero; `None`
    /// if they cannot be read.
    fn memory(&self, address: u64, bytes: u32) -> Option<u64>;
}

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Absent = 0,
    Constant = 1,
    Register = 2,
    Memory = 3,
}

/// One argument of a probe. All zero bytes are an argument that cannot be
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Operand {
    /// The constant; or the displacement of memory.
    value: u64,
    /// A [`Kind`].
    kind: u8,
    /// Bytes of the value.
    bytes: u8,
    /// 1 if the value is signed.
    signed: u8,
    /// The register, or memory's base; [`NONE`] if it has none.
    register: u8,
    /// Bits below the register's part that is meant: 8 for `ah`.
    shift: u8,
    /// Memory's index register; [`NONE`] if it has none.
    index: u8,
    /// What the index is multiplied by: 1, 2, 4 or 8.
    scale: u8,
    /// Always zero.
    padding: u8,
}

// SAFETY: repr(C), fields fill all 16 bytes, any bit pattern is valid.
unsafe impl crate::Record for Operand {}

const _: () = assert!(size_of::<Operand>() == 16, "no padding");

impl Operand {
    /// An argument that cannot be read.
    pub const ABSENT: Self = Self {
        value: 0,
        kind: Kind::Absent as u8,
        bytes: 0,
        signed: 0,
        register: NONE,
        shift: 0,
        index: NONE,
        scale: 0,
        padding: 0,
    };

    /// A constant.
    pub const fn constant(width: Width, value: u64) -> Self {
        Self {
            value,
            kind: Kind::Constant as u8,
            ..Self::of(width)
        }
    }

    /// The part of a register from bit `shift` (0 or 8) on.
    pub const fn register(width: Width, register: Register, shift: u8) -> Self {
        Self {
            kind: Kind::Register as u8,
            register: register.0,
            shift,
            ..Self::of(width)
        }
    }

    /// Memory at `base + index * scale + displacement`.
    pub const fn memory(
        width: Width,
        base: Option<Register>,
        index: Option<(Register, u8)>,
        displacement: u64,
    ) -> Self {
        let (index, scale) = match index {
            Some((register, scale)) => (register.0, scale),
            None => (NONE, 0),
        };
        Self {
            value: displacement,
            kind: Kind::Memory as u8,
            register: match base {
                Some(register) => register.0,
                None => NONE,
            },
            index,
            scale,
            ..Self::of(width)
        }
    }

    const fn of(width: Width) -> Self {
        Self {
            bytes: width.bytes,
            signed: width.signed as u8,
            ..Self::ABSENT
        }
    }

    /// The argument's value, extended to 64 bits by its sign if it has one;
    /// `None` if it cannot be read.
    #[inline(always)]
    pub fn evaluate(&self, machine: &impl Machine) -> Option<u64> {
        let mut value = 0;
        self.evaluate_into(machine, &mut value).then_some(value)
    }

    /// The same for the kernel side: whether it can be read. If not, the value
    /// is 0, never without one, which the verifier would not accept.
    #[inline(always)]
    pub fn evaluate_into(&self, machine: &impl Machine, value: &mut u64) -> bool {
        let mut is_known = true;
        let mut read = |value: Option<u64>| match value {
            Some(value) => value,
            None => {
                is_known = false;
                0
            }
        };
        let raw = if self.kind == Kind::Constant as u8 {
            self.value
        } else if self.kind == Kind::Register as u8 {
            read(machine.register(Register(self.register))) >> (self.shift & 63)
        } else if self.kind == Kind::Memory as u8 {
            let mut address = self.value;
            if self.register != NONE {
                let base = read(machine.register(Register(self.register)));
                address = address.wrapping_add(base);
            }
            if self.index != NONE {
                let index = read(machine.register(Register(self.index)));
                address = address.wrapping_add(index.wrapping_mul(u64::from(self.scale)));
            }
            // Between 1 and 8, as the verifier must see.
            let bytes = (u32::from(self.bytes).wrapping_sub(1) & 7) + 1;
            read(machine.memory(address, bytes))
        } else {
            read(None)
        };
        *value = if is_known { self.extend(raw) } else { 0 };
        is_known
    }

    /// The lower bytes, extended.
    #[inline(always)]
    fn extend(&self, value: u64) -> u64 {
        let shift = 64u32.wrapping_sub(u32::from(self.bytes) * 8) & 63;
        let upper = value << shift;
        if self.signed != 0 {
            (upper.cast_signed() >> shift).cast_unsigned()
        } else {
            upper >> shift
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAX: Register = Register(10);
    const RBX: Register = Register(5);

    /// Registers that hold 0x1000 times their number, and memory in which
    /// each byte is the lowest of its address.
    struct Numbers;

    impl Machine for Numbers {
        fn register(&self, register: Register) -> Option<u64> {
            (register != Register::RIP).then(|| 0xffff_8080_0000 + register.offset() / 8 * 0x1000)
        }

        fn memory(&self, address: u64, bytes: u32) -> Option<u64> {
            assert!((1..=8).contains(&bytes));
            let byte = |index: u32| (address.wrapping_add(u64::from(index)) & 0xff) << (8 * index);
            (address != 0).then(|| (0..bytes).map(byte).sum())
        }
    }

    fn width(bytes: u8, signed: bool) -> Width {
        Width::new(bytes, signed).unwrap()
    }

    #[test]
    fn values_are_cut_and_extended() {
        for (bytes, signed, value, expected) in [
            (1, false, 0x1ff, 0xff),
            (1, true, 0x1ff, u64::MAX),
            (2, true, 0x1_7fff, 0x7fff),
            (4, true, 0x8000_0000, 0xffff_ffff_8000_0000),
            (4, false, 0xf_8000_0000, 0x8000_0000),
            (8, true, u64::MAX, u64::MAX),
            (8, false, 1 << 63, 1 << 63),
        ] {
            let operand = Operand::constant(width(bytes, signed), value);
            assert_eq!(operand.evaluate(&Numbers), Some(expected), "{operand:?}");
        }
    }

    #[test]
    fn registers_and_their_parts() {
        let of = |bytes, signed, shift| {
            Operand::register(width(bytes, signed), RAX, shift).evaluate(&Numbers)
        };
        assert_eq!(of(8, false, 0), Some(0xffff_8080_a000));
        assert_eq!(of(4, true, 0), Some(0xffff_ffff_8080_a000));
        assert_eq!(of(2, false, 0), Some(0xa000));
        assert_eq!(of(1, false, 8), Some(0xa0));
        assert_eq!(of(1, true, 8), Some(0xffff_ffff_ffff_ffa0));
    }

    #[test]
    fn memory_by_base_index_and_displacement() {
        let of = |bytes, base, index, displacement| {
            Operand::memory(width(bytes, false), base, index, displacement).evaluate(&Numbers)
        };
        assert_eq!(of(1, Some(RBX), None, 0x12), Some(0x12));
        assert_eq!(of(1, Some(RBX), None, (-2i64).cast_unsigned()), Some(0xfe));
        assert_eq!(of(4, None, None, 0x10), Some(0x1312_1110));
        assert_eq!(of(1, None, Some((RAX, 8)), 3), Some(3));
        assert_eq!(of(1, Some(RBX), Some((RAX, 1)), 4), Some(4));
        // What cannot be read is absent.
        assert_eq!(of(8, None, None, 0), None);
        assert_eq!(of(8, Some(Register::RIP), None, 0), None);
        assert_eq!(Operand::default().evaluate(&Numbers), None);
        assert_eq!(Operand::ABSENT.evaluate(&Numbers), None);
    }

    #[test]
    fn any_bytes_are_safe() {
        for byte in 0..=u8::MAX {
            let operand: Operand = crate::read_record(&[byte; 16]).unwrap();
            let _ = operand.evaluate(&Numbers);
        }
    }

    #[test]
    fn only_sizes_that_exist() {
        for bytes in [0, 3, 5, 9, 255] {
            assert_eq!(Width::new(bytes, true), None);
        }
        assert_eq!(Register::from_word(WORDS), None);
    }
}
