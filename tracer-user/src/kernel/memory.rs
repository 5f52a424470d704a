//! When the kernel takes memory for hash maps.
//!
//! Elements that are made on demand cost nothing until then. But before 6.1
//! the kernel had no allocator that tracing programs may use safely, and warns
//! (which taints it, or worse with `panic_on_warn`) when one is loaded with such
//! a map. There all elements are made in advance, and there are fewer.

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol};
use tracer_ebpf::limits::MAX_THREADS;

use super::footprint::Threads;

/// The maps whose elements are made on demand.
pub const ON_DEMAND: [&str; 13] = [
    "ARENAS",
    "CLASS_NAMES",
    "CODE_OF",
    "FILES",
    "FREED_SINCE",
    "HAS_SAMPLER",
    "OBJECTS",
    "ORIGINS_OF",
    "PROCESSES",
    "REPLACED",
    "STATED",
    "THREADS",
    "VM_OF",
];

/// The first kernel with such an allocator.
const ALLOCATOR: (u32, u32) = (6, 1);

/// Threads and processes, at most, where their records are made in advance.
const MAX_IN_ADVANCE: u32 = 4096;

/// Where `map_flags` is in a map's definition (`struct bpf_map_def`).
const FLAGS: u64 = 16;

/// How many threads there can be on this kernel.
///
/// # Errors
/// Fails if the kernel's release is not of the usual form.
pub fn threads() -> Result<Threads> {
    let in_advance = has_no_allocator()?;
    Ok(Threads {
        most: if in_advance {
            MAX_IN_ADVANCE
        } else {
            MAX_THREADS
        },
        in_advance,
    })
}

/// Whether this kernel is too old for elements on demand.
fn has_no_allocator() -> Result<bool> {
    Ok(release()? < ALLOCATOR)
}

/// The first two numbers of the kernel's release.
///
/// # Errors
/// Fails if it is not of the usual form.
pub fn release() -> Result<(u32, u32)> {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    version(&release).with_context(|| format!("an odd kernel release: {release}"))
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A copy of a BPF object in which `maps` have no flags.
///
/// # Errors
/// Fails if the object has no such map.
pub fn preallocate(bytes: &[u8], maps: &[&str]) -> Result<Vec<u8>> {
    let object = object::File::parse(bytes)?;
    let mut copy = bytes.to_vec();
    for map in maps {
        let flags = flags_of(&object, map)
            .and_then(|at| copy.get_mut(at..at.checked_add(4)?))
            .with_context(|| format!("the BPF object has no map {map}"))?;
        flags.fill(0);
    }
    Ok(copy)
}

/// Where a map's flags are in the file.
fn flags_of(object: &object::File<'_>, map: &str) -> Option<usize> {
    let symbol = object.symbols().find(|symbol| symbol.name() == Ok(map))?;
    let section = object.section_by_index(symbol.section_index()?).ok()?;
    let (start, _) = section.file_range()?;
    usize::try_from(start + symbol.address() + FLAGS).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::OBJECT;

    /// `BPF_F_NO_PREALLOC`.
    const MADE_ON_DEMAND: u32 = 1;

    #[test]
    fn the_first_two_numbers_count() {
        assert_eq!(version("5.10.0-46-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("6.1.0"), Some((6, 1)));
        assert_eq!(version("7.3.4+deb"), Some((7, 3)));
        assert_eq!(version("next"), None);
        assert!((5, 10) < ALLOCATOR && (6, 1) >= ALLOCATOR);
    }

    #[test]
    fn only_the_flags_change() {
        let definitions = |bytes: &[u8]| {
            let object = aya_obj::Object::parse(bytes).unwrap();
            let flags = |map: &aya_obj::Map| (map.map_flags(), map.max_entries());
            let mut all: Vec<_> = object
                .maps
                .iter()
                .map(|(name, map)| (name.clone(), flags(map)))
                .collect();
            all.sort();
            all
        };
        let copy = preallocate(OBJECT, &ON_DEMAND).unwrap();
        for ((name, old), (_, new)) in definitions(OBJECT).into_iter().zip(definitions(&copy)) {
            let expected = if ON_DEMAND.contains(&name.as_str()) {
                assert_ne!(old.0, 0, "{name}");
                (0, old.1)
            } else {
                assert_eq!(old.0 & MADE_ON_DEMAND, 0, "{name}");
                old
            };
            assert_eq!(new, expected, "{name}");
        }
        assert!(preallocate(OBJECT, &["NO_SUCH_MAP"]).is_err());
    }
}
