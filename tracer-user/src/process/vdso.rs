//! The code that the kernel maps into every process, `[vdso]`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::maps::{MappingName, read_executable};

/// The kernel's name for it.
pub const NAME: &str = "[vdso]";

/// It has two pages; more than this is something else.
const MAX_SIZE: u64 = 1 << 20;

/// The size of this process's vdso, as it is mapped, and its bytes. It is the
/// same in every process of the same size of addresses.
///
/// # Errors
/// The reason why it cannot be read.
pub fn own() -> Result<(u64, Vec<u8>), String> {
    let text = |error: std::io::Error| format!("our own vdso cannot be read: {error}");
    let maps = File::open("/proc/self/maps")
        .and_then(read_executable)
        .map_err(text)?;
    let range = maps
        .into_iter()
        .find(|range| range.name == MappingName::Special(NAME.into()))
        .ok_or("we have no vdso")?;
    let size = range.end.0 - range.start.0;
    let length = usize::try_from(size.min(MAX_SIZE)).unwrap_or(0);
    let mut bytes = vec![0; length];
    let memory = File::open("/proc/self/mem").map_err(text)?;
    memory
        .read_exact_at(&mut bytes, range.start.0)
        .map_err(text)?;
    Ok((size, bytes))
}
