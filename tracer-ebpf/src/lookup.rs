//! From an address to its rule, by the tables.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_ebpf::callsite::{CALL_BYTES, ends_in_call};
use tracer_ebpf::limits::{RANGE_ROUNDS, ROW_ROUNDS};
use tracer_ebpf::stack::StackEnd;
use tracer_ebpf::table::{Range, RangeKind, fixed, search};

use crate::maps::{RANGES, ROWS, SPACES};

/// Functions that are verified on their own return plain numbers: below this
/// what they found, from this on why there is nothing.
const FAILED: u64 = 1 << 60;

/// From here on: the number of the JVM whose code cache has an address.
const IN_VM: u64 = 1 << 48;

/// Where the number of the range stands beside that of the rule.
const RANGE_SHIFT: u32 = 20;

const END: u64 = fixed::END as u64;
const SIGNAL: u64 = fixed::SIGNAL as u64;

/// The number that stands for a reason.
#[inline(always)]
pub(crate) fn failed(end: StackEnd) -> u64 {
    FAILED + end as u64
}

/// The reason that a number stands for, if it does.
#[inline(always)]
pub(crate) fn reason_of(number: u64) -> Option<StackEnd> {
    if number < FAILED {
        return None;
    }
    Some(StackEnd::from_number(number - FAILED))
}

/// The number of a JVM that stands in place of a rule's.
#[inline(always)]
pub(crate) fn vm_of(number: u64) -> Option<u32> {
    if !(IN_VM..FAILED).contains(&number) {
        return None;
    }
    Some(number as u32)
}

/// The numbers of a rule and of the range in which it was found, in one.
#[inline(always)]
pub(crate) const fn found(rule: u64, range: u32) -> u64 {
    rule | (range as u64) << RANGE_SHIFT
}

/// The rule's number in what [`found`] made.
#[inline(always)]
pub(crate) const fn rule_in(number: u64) -> u32 {
    number as u32 & ((1 << RANGE_SHIFT) - 1)
}

/// The range's.
#[inline(always)]
pub(crate) const fn range_in(number: u64) -> u32 {
    (number >> RANGE_SHIFT) as u32
}

/// What is [`found`] for an address in an address space: for a return address,
/// or (`exact` is 1) for an interrupted instruction. If there is nothing, see
/// [`vm_of`] and [`reason_of`]. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_rule(space: u32, address: u64, exact: u32) -> u64 {
    match find(space, address, exact != 0) {
        Ok(number) => number,
        Err(end) => failed(end),
    }
}

/// The number of the range that an address lies in, or [`reason_of`] why it lies
/// in none. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_range(space: u32, address: u64) -> u64 {
    match range_of(space, address) {
        Ok((index, _)) => u64::from(index),
        Err(end) => failed(end),
    }
}

#[inline(always)]
fn find(space: u32, address: u64, exact: bool) -> Result<u64, StackEnd> {
    let (index, range) = range_of(space, address)?;
    // SAFETY: a live map value. User space may be about to replace the part
    // that it is in, but not before this program has ended.
    let range = unsafe { *range };
    if range.kind == RangeKind::Pending as u32 {
        return Err(StackEnd::NoRowYet);
    }
    if range.kind == RangeKind::Trampoline as u32 {
        return Err(StackEnd::Hijacked);
    }
    if range.kind == RangeKind::Java as u32 {
        return match range.returns {
            0 => Err(StackEnd::JavaLayout),
            vm => Ok(IN_VM + u64::from(vm)),
        };
    }
    let rule = if range.kind == RangeKind::Bare as u32 {
        bare(address, exact)?
    } else if range.kind == RangeKind::Script as u32 {
        bare(address, exact)? + u64::from(fixed::SCRIPT - fixed::FRAME_POINTER)
    } else {
        let rows = Rows {
            returns: (range.returns, range.returns_len),
            full: (range.full, range.full_len),
        };
        rows.rule(address, address.wrapping_sub(range.base), exact)?
    };
    Ok(found(rule, index))
}

/// The rule of an address in code without a table.
#[inline(always)]
pub(crate) fn bare(address: u64, exact: bool) -> Result<u64, StackEnd> {
    if exact || follows_call(address) {
        Ok(u64::from(fixed::FRAME_POINTER))
    } else {
        Err(StackEnd::BadReturn)
    }
}

/// Where the rows of a table are: the first, and how many.
pub(crate) struct Rows {
    pub(crate) returns: (u32, u32),
    pub(crate) full: (u32, u32),
}

impl Rows {
    /// The rule's number for an address that is at `offset` of the table.
    #[inline(always)]
    pub(crate) fn rule(&self, address: u64, offset: u64, exact: bool) -> Result<u64, StackEnd> {
        if exact {
            return row(self.full.0, self.full.1, offset);
        }
        let (first, len) = self.returns;
        if follows_call(address) {
            return row(first, len, offset.wrapping_sub(1));
        }
        // Nothing was called here. A thread's start and the return from a signal
        // handler are put on the stack by hand; anything else is no code address.
        for offset in [offset.wrapping_sub(1), offset] {
            match row(first, len, offset) {
                Ok(END) => return Ok(END),
                Ok(SIGNAL) => return Ok(SIGNAL),
                _ => {}
            }
        }
        Err(StackEnd::BadReturn)
    }
}

/// The range that an address lies in.
#[inline(always)]
fn range_of(space: u32, address: u64) -> Result<(u32, *const Range), StackEnd> {
    let Some(space) = SPACES.get(space) else {
        return Err(StackEnd::NoMapping);
    };
    let start = |index: u32| RANGES.get(index).map(|range| range.start);
    let index = search::<RANGE_ROUNDS>(space.first, space.len, address, start)
        .ok_or(StackEnd::NoMapping)?;
    match RANGES.get_ptr(index) {
        // SAFETY: a live map value.
        Some(range) if address < unsafe { (*range).end } => Ok((index, range)),
        _ => Err(StackEnd::NoMapping),
    }
}

/// The rule's number in a table.
#[inline(always)]
fn row(first: u32, len: u32, offset: u64) -> Result<u64, StackEnd> {
    let number = find_row(first, len, offset);
    match reason_of(number) {
        None => Ok(number),
        Some(end) => Err(end),
    }
}

/// The number of the rule in the row of an offset, or [`reason_of`] why there is
/// none. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_row(first: u32, len: u32, offset: u64) -> u64 {
    // In the search's words, kept few: there is little of the kernel's stack.
    let mut rule = failed(StackEnd::NoRow);
    let (mut low, mut left) = (first, len);
    let mut round = 0;
    while round < ROW_ROUNDS && left > 0 {
        let half = left >> 1;
        let Some(row) = ROWS.get(low.wrapping_add(half)) else {
            return failed(StackEnd::NoRow);
        };
        if row.offset() <= offset {
            rule = u64::from(row.rule());
            low = low.wrapping_add(half).wrapping_add(1);
            left = left.wrapping_sub(half).wrapping_sub(1);
        } else {
            left = half;
        }
        round += 1;
    }
    rule
}

/// Whether there is a call before an address. One at the very beginning of
/// mapped memory cannot be looked at, and passes.
#[inline(always)]
fn follows_call(address: u64) -> bool {
    let mut code = 0u64;
    // SAFETY: fewer bytes than the local has; a fault is an error code.
    let status = unsafe {
        bpf_probe_read_user(
            (&raw mut code).cast(),
            CALL_BYTES as u32,
            address.wrapping_sub(CALL_BYTES as u64) as *const _,
        )
    };
    status != 0 || ends_in_call(code)
}
