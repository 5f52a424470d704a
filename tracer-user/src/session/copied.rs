//! Allocators whose code a program has copied to memory without a file, where no probe
//! can be: they are said once.

use std::collections::HashSet;

use super::Session;
use crate::attach::copied::allocator_in;
use crate::process::copied::Copied;
use crate::process::maps::FileId;

/// Copies that were looked at: the image, the file, and where in it they begin.
pub(super) type Noted = HashSet<(u64, FileId, u64)>;

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
        let declared = &self.options.allocators;
        let Some((left_alone, count)) = allocator_in(pid, copied, is_program, declared) else {
            return;
        };
        self.engine.losses.left_alone += count as u64;
        self.note_left_alone(left_alone);
    }
}
