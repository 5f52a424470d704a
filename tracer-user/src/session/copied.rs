//! Allocators whose code a program has copied to memory without a file: a probe belongs
//! to a file, and the kernel places none there.

use std::collections::HashSet;

use super::Session;
use super::left_alone::Notice;
use crate::attach::allocator::{self, InFile};
use crate::attach::inspect::process_name;
use crate::model::{LeftAlone, LeftAloneCause};
use crate::process::copied::Copied;
use crate::process::maps::FileId;
use crate::visible::clean;

/// Copies that were looked at: the image, the file, and where in it they begin.
pub(super) type Noted = HashSet<(u64, FileId, u64)>;

/// What is not seen, and what to do.
const UNSEEN: &str = "its calls are not seen; start the program without large pages for its code (node's --use-largepages, for example), or preload an allocator in a library of its own";

impl Session {
    /// Says which functions would be probed and cannot be, since a process has copied
    /// them; once for each copy.
    pub(super) fn note_copied(&mut self, pid: u32) {
        if self.options.growth || self.options.sampler {
            return;
        }
        let image = self.images.current(pid);
        let Some(image) = image.and_then(|index| self.images.get(index)) else {
            return;
        };
        let image = image.id;
        let Some(code) = self.images.current_code(pid) else {
            return;
        };
        let copies: Vec<_> = code
            .copied()
            .map(|copied| (copied.clone(), code.is_program_file(copied.range.file)))
            .collect();
        for (copied, is_program) in copies {
            let key = (image, copied.range.file, copied.range.file_offset.0);
            let id = (copied.range.file, is_program);
            if self.noted_copies.insert(key) && !self.engine.without_allocator.contains_key(&id) {
                self.note_copy(pid, &copied, is_program);
            }
        }
    }

    fn note_copy(&mut self, pid: u32, copied: &Copied, is_program: bool) {
        let path = copied.range.name.path().unwrap_or("?".as_ref());
        let path = path.to_string_lossy();
        let declared = &self.options.allocators;
        let found = allocator::in_file(&copied.file, &path, is_program, declared);
        let Ok(InFile::Allocator(allocator)) = found else {
            return;
        };
        let first = copied.range.file_offset.0;
        let offsets = first..first + (copied.range.end.0 - copied.range.start.0);
        let functions = allocator.functions.iter();
        let inside: Vec<_> = functions
            .filter(|function| offsets.contains(&function.start.0))
            .collect();
        let Some(one) = inside.first() else {
            return;
        };
        let function = match inside.len() {
            1 => one.symbol.to_string(),
            count => format!("{} (and {} more functions)", one.symbol, count - 1),
        };
        self.engine.losses.left_alone += inside.len() as u64;
        let left_alone = LeftAlone {
            function,
            module: path.into_owned(),
            file_offset: one.start.0,
            pid,
            process: process_name(pid),
            cause: LeftAloneCause::Copied,
            leads_to: Vec::new(),
            at: None,
            unseen: UNSEEN.to_owned(),
        };
        let sentence = clean(&left_alone.sentence()).into_owned();
        self.notices.push(Notice::Warning(sentence));
        self.left_alone.push(left_alone);
    }
}
