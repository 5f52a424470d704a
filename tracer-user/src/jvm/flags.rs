//! The VM's flags (`-XX`), as they are set in a process.

use std::io;

use anyhow::{Context, Result, bail};

use super::fields::{Fields, UnknownLayout};
use super::memory::{CachedMemory, TargetMemory};

/// A VM has 1,000 to 1,600.
const MAX_FLAGS: u64 = 8192;
/// The longest name, bytes.
const MAX_NAME: usize = 256;
/// The types that flags have had.
const TYPES: [&str; 2] = ["JVMFlag", "Flag"];

/// Whether flags are on; one that this VM does not have is off.
///
/// # Errors
/// Fails if the VM does not tell, or its flags cannot be read.
pub fn are_on<const N: usize>(
    fields: Fields<'_>,
    memory: &dyn TargetMemory,
    wanted: [&str; N],
) -> Result<[bool; N]> {
    let has = |kind: &&&'static str| fields.static_field(kind, "flags").is_some();
    let kind = TYPES.iter().find(has).ok_or_else(|| UnknownLayout {
        what: "JVMFlag::flags".into(),
    })?;
    let memory = CachedMemory::new(memory);
    let count = memory.u64(fields.address(&[(kind, "numFlags")])?)?;
    if count > MAX_FLAGS {
        bail!("the Java VM's flags have no end");
    }
    let array = memory.u64(fields.address(&[(kind, "flags")])?)?;
    let (size, name) = (fields.size(kind)?, fields.offset(&[(kind, "_name")])?);
    let value = fields.offset(&[(kind, "_addr")])?;
    let mut on = [false; N];
    for index in 0..count {
        let flag = array.wrapping_add(index * u64::from(size));
        let place = |offset: u32| memory.u64(flag.wrapping_add(offset.into()));
        let named = name_of(&memory, place(name)?).context("cannot read the Java VM's flags")?;
        if let Some(at) = wanted.iter().position(|wanted| wanted.as_bytes() == named) {
            on[at] = memory.u8(place(value)?)? != 0;
        }
    }
    Ok(on)
}

/// The name at an address; the last flag has none.
fn name_of(memory: &dyn TargetMemory, address: u64) -> io::Result<Vec<u8>> {
    match address {
        0 => Ok(Vec::new()),
        address => memory.c_string(address, MAX_NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::tests::synthetic::Synthetic;
    use crate::jvm::vmstructs::{Place, VmStructs};

    fn structs() -> VmStructs {
        let fields = [
            ("JVMFlag", "flags", "JVMFlag*", Place::Static(0x1000)),
            ("JVMFlag", "numFlags", "size_t", Place::Static(0x1008)),
            ("JVMFlag", "_name", "const char*", Place::Offset(8)),
            ("JVMFlag", "_addr", "", Place::Offset(0)),
        ];
        VmStructs::of_parts(&fields, &[("JVMFlag", 16)], &[])
    }

    #[test]
    fn flags_are_found_by_their_names() {
        let mut memory = Synthetic::default();
        memory.put(0x1000, &[0; 0x1000]);
        memory.put(0x1000, &0x1100_u64.to_le_bytes());
        memory.put(0x1008, &3_u64.to_le_bytes());
        let flags = [0x1201_u64, 0x1300, 0x1200, 0x1310, 0, 0];
        memory.put(0x1100, &flags.map(u64::to_le_bytes).concat());
        memory.put(0x1200, &[0, 1]);
        memory.put(0x1300, b"UseOne\0");
        memory.put(0x1310, b"UseOther\0");
        let structs = structs();
        let on = are_on(Fields(&structs), &memory, ["UseOther", "UseOne", "UseNone"]);
        assert_eq!(on.unwrap(), [false, true, false]);
        memory.put(0x1008, &u64::MAX.to_le_bytes());
        assert!(are_on(Fields(&structs), &memory, ["UseOne"]).is_err());
        assert!(are_on(Fields(&VmStructs::default()), &memory, ["UseOne"]).is_err());
    }
}
