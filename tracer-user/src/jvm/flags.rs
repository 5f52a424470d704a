//! The VM's flags (`JVMFlag`, until JDK 9 `Flag`), by the table that it exports.

use super::fields::Fields;
use super::memory::{CachedMemory, TargetMemory};
use super::vmstructs::VmStructs;

/// More flags than this are not looked at; JDK 17 has 1,400.
const MAX_FLAGS: u64 = 8192;

/// The longest name of a flag, bytes.
const MAX_NAME: usize = 128;

/// The value of a flag that is true or false; `None` if there is none of that
/// name, or the VM does not tell.
pub fn is_on(structs: &VmStructs, memory: &dyn TargetMemory, name: &str) -> Option<bool> {
    let (memory, fields) = (CachedMemory::new(memory), Fields(structs));
    ["JVMFlag", "Flag"]
        .iter()
        .find_map(|kind| find(fields, &memory, kind, name))
}

fn find(
    fields: Fields<'_>,
    memory: &dyn TargetMemory,
    kind: &'static str,
    name: &str,
) -> Option<bool> {
    let first = memory.u64(fields.static_field(kind, "flags")?).ok()?;
    let count = memory.u64(fields.static_field(kind, "numFlags")?).ok()?;
    let size = fields.size(kind).ok()?;
    let name_at = fields.find_offset(&[(kind, "_name")])?;
    let value_at = fields.find_offset(&[(kind, "_addr")])?;
    let is_it = |flag: &u64| {
        let text = memory.u64(flag.wrapping_add(name_at.into()));
        text.and_then(|text| memory.c_string(text, MAX_NAME))
            .is_ok_and(|text| text == name.as_bytes())
    };
    let flag = (0..count.min(MAX_FLAGS))
        .map(|index| first.wrapping_add(index * u64::from(size)))
        .find(is_it)?;
    let value = memory.u64(flag.wrapping_add(value_at.into())).ok()?;
    Some(memory.u8(value).ok()? != 0)
}
