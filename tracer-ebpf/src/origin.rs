//! Where calls of allocators are made from: the code that `--module` and `--only` mean.
//!
//! Each process image has a sorted list of ranges. Some were asked for. Others are
//! *doors*: functions such as `operator new` that do nothing but call an allocator, so
//! that what counts is where they were called from. For each of their call
//! instructions it is known, by the file's call frame information, where on the stack
//! the door's own return address is.

use crate::table::search;

/// Ranges of an image, those of doors among them.
pub const MAX_ORIGINS: usize = 128;

/// Ranges of an image that were asked for, at most.
pub const MAX_ASKED: usize = 64;

/// Lists of ranges there can be at once. Forked processes share their parent's.
pub const MAX_LISTS: u32 = 1024;

/// The list without a range, which is never changed.
pub const NOWHERE: u32 = 1;

/// The list of one range that has everything, for calibration.
pub const EVERYWHERE: u32 = 2;

/// The first that images get.
pub const FIRST_LIST: u32 = 3;

/// Beside the number of a list: code that was asked for lies in a file with probed
/// functions, so that one may call another from it.
pub const IS_NOTED: u64 = 1 << 32;

/// How many doors a call comes through, at most: `operator new[]` that throws nothing,
/// `operator new[]`, `operator new`.
pub const MAX_DOORS: u32 = 4;

/// Steps that find one of [`MAX_ORIGINS`].
const ROUNDS: u32 = 8;

const _: () = assert!(MAX_ORIGINS < 1 << ROUNDS && MAX_ORIGINS.is_power_of_two());

/// Code in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Origin {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// What it is.
    pub kind: u32,
    /// Of a door: bytes from the stack pointer right before the call to the door's
    /// return address, or from its frame pointer.
    pub offset: i32,
    /// Of a door: bytes from that return address to where it has saved its caller's
    /// frame pointer; 0 if that is in its register.
    pub saved: i64,
}

// SAFETY: repr(C), fields fill all 32 bytes, any bit pattern is valid.
unsafe impl crate::Record for Origin {}

/// What an [`Origin`] is.
pub mod kind {
    /// Asked for.
    pub const ASKED: u32 = 0;
    /// A door whose return address is found from the stack pointer.
    pub const BY_STACK: u32 = 1;
    /// The same from the frame pointer.
    pub const BY_FRAME: u32 = 2;
}

/// The ranges of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Origins {
    /// How many there are.
    pub len: u32,
    /// Always zero.
    pub padding: u32,
    /// Sorted by address; they do not overlap.
    pub all: [Origin; MAX_ORIGINS],
}

// SAFETY: repr(C), two u32 and Origins, no padding, any bit pattern is valid.
unsafe impl crate::Record for Origins {}

impl Origins {
    /// None.
    pub const EMPTY: Self = Self {
        len: 0,
        padding: 0,
        all: [Origin {
            start: 0,
            end: 0,
            kind: kind::ASKED,
            offset: 0,
            saved: 0,
        }; MAX_ORIGINS],
    };

    /// These, sorted. `None` if they are too many.
    pub fn new(ranges: &[Origin]) -> Option<Self> {
        let mut origins = Self::EMPTY;
        origins.all.get_mut(..ranges.len())?.copy_from_slice(ranges);
        origins.len = u32::try_from(ranges.len()).ok()?;
        Some(origins)
    }
}

/// What a return address says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Code that was not asked for.
    Elsewhere,
    /// Code that was.
    Asked,
    /// A door, whose caller counts.
    Door(Door),
}

/// Where to look for the caller of a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// Where its return address is.
    pub slot: u64,
    /// Where its caller's frame pointer is saved; 0 if it is in its register.
    pub saved: u64,
}

/// Who has made the call that returns to `back`, which stands at `slot`, with the frame
/// pointer `frame`.
///
/// # Safety
/// `origins` points to a list that is valid.
#[inline(always)]
pub unsafe fn caller(origins: *const Origins, back: u64, slot: u64, frame: u64) -> Caller {
    // SAFETY: the caller's list; an index is masked to lie in it.
    let at = |index: u32| unsafe {
        let index = crate::volatile::opaque(index as usize) & (MAX_ORIGINS - 1);
        (&raw const (*origins).all).cast::<Origin>().add(index)
    };
    // The call instruction is before the address that it returns to.
    let address = back.wrapping_sub(1);
    // SAFETY: as above.
    let (len, start) = unsafe { ((*origins).len, |index| Some((*at(index)).start)) };
    let Some(index) = search::<ROUNDS>(0, len, address, start) else {
        return Caller::Elsewhere;
    };
    let found = at(index);
    // SAFETY: as above.
    let (end, kind, offset, saved) = unsafe {
        let found = &*found;
        (found.end, found.kind, i64::from(found.offset), found.saved)
    };
    if address >= end {
        return Caller::Elsewhere;
    }
    let base = match kind {
        kind::ASKED => return Caller::Asked,
        // The call has pushed one word.
        kind::BY_STACK => slot.wrapping_add(8),
        _ => frame,
    };
    let slot = base.wrapping_add_signed(offset);
    let saved = match saved {
        0 => 0,
        saved => slot.wrapping_add_signed(saved),
    };
    Caller::Door(Door { slot, saved })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn asked(start: u64, end: u64) -> Origin {
        Origin {
            start,
            end,
            kind: kind::ASKED,
            offset: 0,
            saved: 0,
        }
    }

    fn of(origins: &Origins, back: u64) -> Caller {
        // SAFETY: a reference.
        unsafe { caller(origins, back, 0x7000, 0x8000) }
    }

    #[test]
    fn a_call_is_made_by_the_code_before_its_return_address() {
        let origins = Origins::new(&[asked(0x1000, 0x1010), asked(0x1010, 0x1020)]).unwrap();
        assert_eq!(of(&origins, 0x1000), Caller::Elsewhere);
        assert_eq!(of(&origins, 0x1001), Caller::Asked);
        // By a call that is its function's last instruction.
        assert_eq!(of(&origins, 0x1020), Caller::Asked);
        assert_eq!(of(&origins, 0x1021), Caller::Elsewhere);
        assert_eq!(of(&origins, 0), Caller::Elsewhere);
        assert_eq!(of(&Origins::EMPTY, 0x1001), Caller::Elsewhere);
    }

    #[test]
    fn every_one_of_a_full_list_is_found() {
        let ranges: Vec<_> = (0..MAX_ORIGINS as u64)
            .map(|index| asked(0x1000 + index * 0x20, 0x1010 + index * 0x20))
            .collect();
        let origins = Origins::new(&ranges).unwrap();
        for range in &ranges {
            assert_eq!(of(&origins, range.start), Caller::Elsewhere);
            assert_eq!(of(&origins, range.start + 1), Caller::Asked);
            assert_eq!(of(&origins, range.end), Caller::Asked);
            assert_eq!(of(&origins, range.end + 1), Caller::Elsewhere);
        }
        assert!(Origins::new(&[asked(0, 1); MAX_ORIGINS + 1]).is_none());
    }

    #[test]
    fn a_door_leads_to_its_own_return_address() {
        let by_stack = Origin {
            kind: kind::BY_STACK,
            offset: 16,
            saved: -16,
            ..asked(0x1000, 0x1010)
        };
        let by_frame = Origin {
            kind: kind::BY_FRAME,
            offset: 8,
            ..asked(0x1010, 0x1020)
        };
        let origins = Origins::new(&[by_stack, by_frame]).unwrap();
        let door = |slot, saved| Caller::Door(Door { slot, saved });
        assert_eq!(of(&origins, 0x1008), door(0x7018, 0x7008));
        assert_eq!(of(&origins, 0x1018), door(0x8008, 0));
    }
}
