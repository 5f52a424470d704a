//! HotSpot's own probes (`hotspot.stp`, `hotspot*.d` in its sources), as far
//! as they are hit without any start-up flag; and [`ALLOCATED`].

use tracer_ebpf::operand::Operand;
use tracer_ebpf::usdt::{MAX_ARGUMENTS, MAX_TEXTS, Place, TextArguments, tells};

use crate::usdt::Site;

/// The provider of HotSpot's probes.
pub const PROVIDER: &str = "hotspot";

/// The probe that is hit for each Java object, if a flag was given at the
/// VM's start: thread, class (address and length of its name), bytes.
pub const ALLOCATED: &str = "object__alloc";

/// The argument of [`ALLOCATED`] that is the object's size.
const SIZE: usize = 3;

/// A probe that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Watched {
    /// A pause for a collection begins: whether the whole heap is collected.
    PauseBegin,
    /// It ends.
    PauseEnd,
    /// A collection begins, once for each pool: collector and pool (address
    /// and length of each name), initial, used, committed and greatest bytes.
    PoolBegin,
    /// It ended; arguments as above.
    PoolEnd,
    /// A class was loaded: its name (address and length), its loader, whether
    /// it was shared.
    ClassLoaded,
    /// A class is unloaded; arguments as above.
    ClassUnloaded,
    /// A class was initialised; only counted.
    Initialised,
    /// A class's initialiser failed: its name (address and length).
    InitialiserFailed,
    /// A class was wanted whose initialiser had failed.
    InitialiserHadFailed,
    /// The initialiser of a class's superclass failed.
    SuperclassFailed,
    /// A method was compiled: class, name and signature (address and length of
    /// each), first instruction, bytes.
    MethodLoaded,
    /// A compiled method goes; only counted.
    MethodUnloaded,
    /// A thread begins: its name (address and length), its Java id, its
    /// native id, whether it is a daemon.
    ThreadStart,
    /// A thread ends; arguments as above.
    ThreadStop,
}

impl Watched {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::PauseBegin,
        Self::PauseEnd,
        Self::PoolBegin,
        Self::PoolEnd,
        Self::ClassLoaded,
        Self::ClassUnloaded,
        Self::Initialised,
        Self::InitialiserFailed,
        Self::InitialiserHadFailed,
        Self::SuperclassFailed,
        Self::MethodLoaded,
        Self::MethodUnloaded,
        Self::ThreadStart,
        Self::ThreadStop,
    ];

    /// The probe of a number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The probe's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PauseBegin => "gc__begin",
            Self::PauseEnd => "gc__end",
            Self::PoolBegin => "mem__pool__gc__begin",
            Self::PoolEnd => "mem__pool__gc__end",
            Self::ClassLoaded => "class__loaded",
            Self::ClassUnloaded => "class__unloaded",
            Self::Initialised => "class__initialization__end",
            Self::InitialiserFailed => "class__initialization__error",
            Self::InitialiserHadFailed => "class__initialization__erroneous",
            Self::SuperclassFailed => "class__initialization__super__failed",
            Self::MethodLoaded => "compiled__method__load",
            Self::MethodUnloaded => "compiled__method__unload",
            Self::ThreadStart => "thread__start",
            Self::ThreadStop => "thread__stop",
        }
    }

    /// What is told of its hits.
    const fn tells(self) -> u16 {
        match self {
            Self::Initialised | Self::MethodUnloaded => tells::NOTHING,
            Self::MethodLoaded => tells::CODE,
            _ => tells::ARGUMENTS,
        }
    }

    /// How many strings come first among its arguments.
    const fn texts(self) -> u8 {
        match self {
            Self::PauseBegin | Self::PauseEnd => 0,
            Self::PoolBegin | Self::PoolEnd => 2,
            _ => 1,
        }
    }

    /// What the kernel side does at one of its sites.
    pub fn place(self, site: &Site) -> Place {
        let mut texts = [TextArguments::NONE; MAX_TEXTS];
        for (text, number) in texts.iter_mut().zip(0..self.texts()) {
            *text = TextArguments {
                address: number * 2,
                length: number * 2 + 1,
            };
        }
        Place {
            probe: self as u16,
            tells: self.tells(),
            texts,
            ..place(site)
        }
    }
}

/// What the kernel side does at a site of [`ALLOCATED`], and whether the size
/// that is told there is one: where it is an `int`, the interpreter and C1
/// pass none, and what is there means nothing (JDK-8276209, mended in 18).
pub fn allocated(site: &Site) -> (Place, bool) {
    let mut place = place(site);
    let width = site.arguments.get(SIZE).map(|size| size.width);
    let is_size = matches!(width, Some(Ok(width)) if width.bytes() == 8);
    if !is_size {
        place.operands[SIZE] = Operand::ABSENT;
    }
    (place, is_size)
}

/// A site that tells nothing by itself, with its arguments.
fn place(site: &Site) -> Place {
    let mut operands = [Operand::ABSENT; MAX_ARGUMENTS];
    for (operand, argument) in operands.iter_mut().zip(&site.arguments) {
        *operand = argument.operand.unwrap_or(Operand::ABSENT);
    }
    Place {
        hits: 0,
        probe: 0,
        tells: tells::NOTHING,
        texts: [TextArguments::NONE; MAX_TEXTS],
        operands,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back() {
        for (number, probe) in (0..).zip(Watched::ALL) {
            assert_eq!(probe as u16, number);
            assert_eq!(Watched::from_number(number), Some(probe));
        }
        assert_eq!(Watched::from_number(14), None);
    }
}
