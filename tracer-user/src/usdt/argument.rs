//! The arguments of a stapsdt note: `SIZE@OPERAND`, operands in the syntax of
//! the GNU assembler for x86-64, as the compiler wrote them.
//!
//! A form that is not known is an error, and the argument is left out: a
//! value is never guessed.

use std::fmt;

use tracer_ebpf::operand::{Operand, Register, Width};

use super::register::{self, Part};
use crate::process::address::ElfAddress;

/// An argument longer than this is not parsed.
const MAX_LENGTH: usize = 512;

/// Where an argument is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Bytes and sign.
    pub width: Width,
    /// Where.
    pub place: Place,
}

/// Where an argument is when its probe is hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is this number.
    Constant(i64),
    /// In a register, from a bit on.
    Register(Register, u8),
    /// In memory, at the sum of these.
    Memory {
        /// A symbol of the probe's file.
        symbol: Option<String>,
        /// Bytes.
        displacement: i64,
        /// A register.
        base: Option<Register>,
        /// A register, and what it is multiplied by.
        index: Option<(Register, u8)>,
    },
}

/// Why an argument cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It has no size, or one that no integer has.
    Size,
    /// It is a floating-point number: the kernel does not keep those
    /// registers for probes.
    Float,
    /// Its operand has a form that is not known.
    Form,
    /// Its operand names a symbol that the file does not have.
    Symbol,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "its size is not 1, 2, 4 or 8 bytes",
            Self::Float => "floating-point registers cannot be read by a probe",
            Self::Form => "its operand has an unknown form",
            Self::Symbol => "the file has no symbol of that name",
        })
    }
}

impl Argument {
    /// Parses one argument.
    ///
    /// # Errors
    /// Says why the argument cannot be read.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        if text.len() > MAX_LENGTH {
            return Err(Unreadable::Form);
        }
        let (size, operand) = text.split_once('@').ok_or(Unreadable::Size)?;
        let width = parse_width(size, operand)?;
        let place = if let Some(number) = operand.strip_prefix('$') {
            Place::Constant(parse_number(number).ok_or(Unreadable::Form)?)
        } else if let Some(name) = operand.strip_prefix('%') {
            return Self::in_register(width, name);
        } else {
            parse_memory(operand).ok_or(Unreadable::Form)?
        };
        Ok(Self { width, place })
    }

    fn in_register(width: Width, name: &str) -> Result<Self, Unreadable> {
        let Some(part) = register::find(name) else {
            return Err(if is_vector(name) {
                Unreadable::Float
            } else {
                Unreadable::Form
            });
        };
        // What lies above a part is not the argument's.
        let bytes = width.bytes().min(part.bytes);
        Ok(Self {
            width: Width::new(bytes, width.is_signed()).ok_or(Unreadable::Size)?,
            place: Place::Register(part.register, part.shift),
        })
    }

    /// What the kernel evaluates, for a probe at `pc`. `symbol` tells symbols'
    /// addresses in the same file.
    ///
    /// # Errors
    /// Fails if the operand names an unknown symbol.
    pub fn operand(
        &self,
        pc: ElfAddress,
        symbol: impl Fn(&str) -> Option<ElfAddress>,
    ) -> Result<Operand, Unreadable> {
        let operand = match &self.place {
            Place::Constant(value) => Operand::constant(self.width, value.cast_unsigned()),
            Place::Register(register, shift) => Operand::register(self.width, *register, *shift),
            Place::Memory {
                symbol: None,
                displacement,
                base,
                index,
            } => Operand::memory(self.width, *base, *index, displacement.cast_unsigned()),
            // A file is loaded in one piece: what a symbol is away from the
            // probe, it is away from the instruction pointer.
            Place::Memory {
                symbol: Some(name),
                displacement,
                base: None | Some(Register::RIP),
                index,
            } => {
                let address = symbol(name).ok_or(Unreadable::Symbol)?;
                let distance = address.0.wrapping_sub(pc.0);
                let displacement = distance.wrapping_add(displacement.cast_unsigned());
                Operand::memory(self.width, Some(Register::RIP), *index, displacement)
            }
            Place::Memory { .. } => return Err(Unreadable::Form),
        };
        Ok(operand)
    }

    /// The symbol that the operand names, if it does.
    pub fn symbol(&self) -> Option<&str> {
        match &self.place {
            Place::Memory { symbol, .. } => symbol.as_deref(),
            _ => None,
        }
    }
}

/// `-4`, `8`; an `f` after it is for floating-point numbers.
fn parse_width(size: &str, operand: &str) -> Result<Width, Unreadable> {
    let is_float = size.ends_with('f') || operand.strip_prefix('%').is_some_and(is_vector);
    if is_float {
        return Err(Unreadable::Float);
    }
    let digits = size.strip_prefix('-').unwrap_or(size);
    let bytes = match digits {
        "1" => 1,
        "2" => 2,
        "4" => 4,
        "8" => 8,
        _ => return Err(Unreadable::Size),
    };
    Width::new(bytes, digits.len() < size.len()).ok_or(Unreadable::Size)
}

fn is_vector(name: &str) -> bool {
    ["xmm", "ymm", "zmm", "mm", "st", "k"].iter().any(|kind| {
        name.strip_prefix(kind)
            .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || "()".contains(c)))
    })
}

/// A number as C writes it, with a sign.
fn parse_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let magnitude = parse_digits(digits)?;
    Some(if negative {
        magnitude.wrapping_neg()
    } else {
        magnitude
    })
}

fn parse_digits(digits: &str) -> Option<i64> {
    let (digits, radix) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    // Zeros first would make it octal.
    let octal = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    if octal || !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    // Unsigned constants use all 64 bits.
    u64::from_str_radix(digits, radix)
        .ok()
        .map(u64::cast_signed)
}

/// `displacement(base,index,scale)`; each part may be missing.
fn parse_memory(text: &str) -> Option<Place> {
    let (sum, registers) = match text.split_once('(') {
        Some((sum, rest)) => (sum, Some(rest.strip_suffix(')')?)),
        None => (text, None),
    };
    let (symbol, displacement) = if sum.is_empty() {
        registers?;
        (None, 0)
    } else {
        parse_sum(sum)?
    };
    let (base, index) = match registers {
        Some(registers) => parse_registers(registers)?,
        None => (None, None),
    };
    // A bare number is an address only where the compiler says so, which it
    // never does.
    if symbol.is_none() && base.is_none() && index.is_none() {
        return None;
    }
    let from_ip = base == Some(Register::RIP);
    if from_ip && (symbol.is_none() || index.is_some()) {
        // The instruction that it was meant for is not the probe's.
        return None;
    }
    Some(Place::Memory {
        symbol,
        displacement,
        base,
        index,
    })
}

/// Numbers, and at most one symbol, with `+` and `-` between them.
fn parse_sum(text: &str) -> Option<(Option<String>, i64)> {
    let mut symbol = None;
    let mut sum = 0i64;
    let mut rest = text;
    let mut negative = false;
    if let Some(after) = rest.strip_prefix('-') {
        (rest, negative) = (after, true);
    }
    loop {
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let (term, after) = rest.split_at(end);
        if let Some(number) = parse_digits(term) {
            sum = if negative {
                sum.wrapping_sub(number)
            } else {
                sum.wrapping_add(number)
            };
        } else if is_symbol(term) && !negative && symbol.is_none() {
            symbol = Some(term.to_owned());
        } else {
            return None;
        }
        negative = match after.chars().next() {
            None => return Some((symbol, sum)),
            Some(sign) => sign == '-',
        };
        rest = &after[1..];
    }
}

/// What the assembler takes for a symbol without quotes. One with `@` stands
/// for something else than its own address.
fn is_symbol(text: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || "_.$".contains(c);
    text.starts_with(begins) && text.chars().all(|c| begins(c) || c.is_ascii_digit())
}

type Registers = (Option<Register>, Option<(Register, u8)>);

/// `%base`, `%base,%index,scale`, `,%index,scale`.
fn parse_registers(text: &str) -> Option<Registers> {
    let mut parts = text.split(',').map(str::trim);
    let base = match parts.next()? {
        "" => None,
        name => Some(whole(name)?),
    };
    let index = match parts.next() {
        None => None,
        Some(name) => {
            let register = whole(name)?;
            let scale = match parts.next() {
                None | Some("1") => 1,
                Some("2") => 2,
                Some("4") => 4,
                Some("8") => 8,
                Some(_) => return None,
            };
            let usable = register != Register::RIP && name != "%rsp";
            usable.then_some(Some((register, scale)))?
        }
    };
    let complete = parts.next().is_none() && (base.is_some() || index.is_some());
    complete.then_some((base, index))
}

/// A 64-bit register: addresses have no other.
fn whole(name: &str) -> Option<Register> {
    let Part {
        register, bytes, ..
    } = register::find(name.strip_prefix('%')?)?;
    (bytes == 8).then_some(register)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(name: &str) -> Register {
        register::find(name).unwrap().register
    }

    fn parse(text: &str) -> (i8, Place) {
        let Argument { width, place } = Argument::parse(text).unwrap_or_else(|error| {
            panic!("{text}: {error}");
        });
        let bytes = i8::try_from(width.bytes()).unwrap();
        (if width.is_signed() { -bytes } else { bytes }, place)
    }

    fn at(symbol: &str, displacement: i64, base: &str, index: &str, scale: u8) -> Place {
        let named = |name: &str| (!name.is_empty()).then(|| register(name));
        Place::Memory {
            symbol: (!symbol.is_empty()).then(|| symbol.to_owned()),
            displacement,
            base: named(base),
            index: named(index).map(|register| (register, scale)),
        }
    }

    #[test]
    fn constants_and_registers() {
        let whole = |name| Place::Register(register(name), 0);
        for (text, bytes, place) in [
            ("-4@$-5", -4, Place::Constant(-5)),
            ("1@$0", 1, Place::Constant(0)),
            ("8@$0x10", 8, Place::Constant(16)),
            ("8@$18446744073709551615", 8, Place::Constant(-1)),
            ("8@%rdx", 8, whole("rdx")),
            ("-4@%eax", -4, whole("rax")),
            ("1@%cl", 1, whole("rcx")),
            ("1@%ch", 1, Place::Register(register("rcx"), 8)),
            ("2@%ax", 2, whole("rax")),
            ("1@%sil", 1, whole("rsi")),
            ("-8@%r15", -8, whole("r15")),
            ("4@%r8d", 4, whole("r8")),
            ("-2@%r9w", -2, whole("r9")),
            ("1@%r10b", 1, whole("r10")),
            // The part is all that there is.
            ("8@%eax", 4, whole("rax")),
            ("1@%r13d", 1, whole("r13")),
        ] {
            assert_eq!(parse(text), (bytes, place), "{text}");
        }
    }

    #[test]
    fn memory() {
        for (text, place) in [
            ("8@152(%rdi)", at("", 152, "rdi", "", 0)),
            ("8@(%rax)", at("", 0, "rax", "", 0)),
            ("8@-8(%rbp)", at("", -8, "rbp", "", 0)),
            ("8@-24+8(%rbp)", at("", -16, "rbp", "", 0)),
            ("8@0x20(%rsp)", at("", 32, "rsp", "", 0)),
            ("8@(%rax,%rbx,8)", at("", 0, "rax", "rbx", 8)),
            ("8@(%rax,%rbx)", at("", 0, "rax", "rbx", 1)),
            ("8@-4(%r8, %r9, 2)", at("", -4, "r8", "r9", 2)),
            ("8@(,%rax,4)", at("", 0, "", "rax", 4)),
            ("8@symbol(%rip)", at("symbol", 0, "rip", "", 0)),
            ("8@symbol+16(%rip)", at("symbol", 16, "rip", "", 0)),
            ("8@16+symbol-4(%rip)", at("symbol", 12, "rip", "", 0)),
            ("8@.LC0(%rip)", at(".LC0", 0, "rip", "", 0)),
            ("8@_ZL5table", at("_ZL5table", 0, "", "", 0)),
            ("8@table(,%rax,8)", at("table", 0, "", "rax", 8)),
        ] {
            assert_eq!(parse(text), (8, place), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_why() {
        use Unreadable::{Float, Form, Size};
        for (text, why) in [
            ("8f@%xmm0", Float),
            ("8@%xmm15", Float),
            ("16@%ymm1", Float),
            ("8f@16(%rsp)", Float),
            ("4f@%st(1)", Float),
            ("%rax", Size),
            ("3@%rax", Size),
            ("@%rax", Size),
            ("--4@%rax", Size),
            ("16@%rax", Size),
            ("8@", Form),
            ("8@*%rax", Form),
            ("8@*8(%rax)", Form),
            ("8@%rax,%rbx", Form),
            ("8@%fs:40", Form),
            ("8@%fs:40(%rax)", Form),
            ("8@1024", Form),
            ("8@8(%rip)", Form),
            ("8@()", Form),
            ("8@8()", Form),
            ("8@(%eax)", Form),
            ("8@(%rax,%rbx,3)", Form),
            ("8@(%rax,%rsp,8)", Form),
            ("8@(%rax,%rip,8)", Form),
            ("8@(%rax,%rbx,8,1)", Form),
            ("8@(%rax", Form),
            ("8@symbol@GOTPCREL(%rip)", Form),
            ("8@one+two(%rip)", Form),
            ("8@-symbol(%rip)", Form),
            ("8@symbol+(%rip)", Form),
            ("8@$symbol", Form),
            ("8@$010", Form),
            ("8@$0x", Form),
            ("8@$99999999999999999999", Form),
            ("8@é(%rip)", Form),
        ] {
            assert_eq!(Argument::parse(text), Err(why), "{text}");
        }
        assert_eq!(
            Argument::parse(&format!("8@${}", "1".repeat(600))),
            Err(Form)
        );
    }

    #[test]
    fn a_symbol_is_as_far_from_the_probe_as_in_the_file() {
        let width = Width::new(8, false).unwrap();
        let symbol = |name: &str| (name == "counter").then_some(ElfAddress(0x4000));
        let argument = Argument::parse("8@counter+8(%rip)").unwrap();
        let operand = argument.operand(ElfAddress(0x5000), symbol).unwrap();
        let displacement = (0x4008i64 - 0x5000).cast_unsigned();
        assert_eq!(
            operand,
            Operand::memory(width, Some(Register::RIP), None, displacement)
        );
        let other = Argument::parse("8@other(%rip)").unwrap();
        assert_eq!(
            other.operand(ElfAddress(0), symbol),
            Err(Unreadable::Symbol)
        );
        let odd = Argument::parse("8@counter(%rax)").unwrap();
        assert_eq!(odd.operand(ElfAddress(0), symbol), Err(Unreadable::Form));
    }
}
