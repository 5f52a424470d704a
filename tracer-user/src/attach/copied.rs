//! Allocators in code that a process has copied to memory without a file: a probe belongs
//! to a file, and the kernel places none there.

use super::allocator::{Declared, InFile, in_file};
use crate::model::{LeftAlone, LeftAloneCause};
use crate::process::copied::Copied;
use crate::process::short_name::short_name;

/// What is not seen, and what to do.
const UNSEEN: &str = "its calls are not seen; start the program without large pages for its code (node's --use-largepages, for example), or preload an allocator in a library of its own";

/// What is left alone of the allocator in a copy, if there is one, and how many functions
/// of it are. `is_program` tells the process's own executable.
pub fn allocator_in(
    pid: u32,
    copied: &Copied,
    is_program: bool,
    declared: &[Declared],
) -> Option<(LeftAlone, usize)> {
    let path = copied.range.name.path()?.to_string_lossy();
    let Ok(InFile::Allocator(allocator)) = in_file(&copied.file, &path, is_program, declared)
    else {
        return None;
    };
    let first = copied.range.file_offset.0;
    let offsets = first..first + (copied.range.end.0 - copied.range.start.0);
    let functions = allocator.functions.iter();
    let inside: Vec<_> = functions
        .filter(|function| offsets.contains(&function.start.0))
        .collect();
    let one = inside.first()?;
    let function = match inside.len() {
        1 => one.symbol.to_string(),
        2 => format!("{} (and one more function)", one.symbol),
        count => format!("{} (and {} more functions)", one.symbol, count - 1),
    };
    let left_alone = LeftAlone {
        function,
        module: path.into_owned(),
        file_offset: one.start.0,
        pid,
        process: short_name(pid).unwrap_or_default(),
        cause: LeftAloneCause::Copied,
        leads_to: Vec::new(),
        at: None,
        unseen: UNSEEN.to_owned(),
    };
    Some((left_alone, inside.len()))
}
