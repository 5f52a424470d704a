//! What a process holds by its descriptors at the end, compared with the start, and how often
//! it had more open meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::model::descriptors::{DescriptorBalance, GrownDescriptors, GrownFile};
use crate::process::descriptors::{self, Descriptors, MemoryFile};
use crate::process::handle::ProcessHandle;
use crate::process::processor_time::Work;

/// How long to wait between two counts.
const REST: Duration = Duration::from_millis(500);
/// What one count of all processes may take of that time.
const SHARE: u32 = 100;
/// Kinds, and files, that are told, at most.
const MAX_TOLD: usize = 4;

/// How many descriptors processes had open during a run.
#[derive(Debug, Default)]
pub(in crate::session) struct Opened {
    by_image: HashMap<u64, Rises>,
    next: Option<Instant>,
}

/// How often more were open than before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rises {
    /// How often they were counted, the first time aside.
    pub looks: u64,
    /// At how many of these there were more than at any before.
    pub risen: u64,
    /// At which of them that was last, from 1; 0 for none.
    pub last_risen: u64,
    most: Option<u64>,
}

impl Opened {
    /// Whether it is time for a count.
    pub(in crate::session) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Counts those of these processes, by image.
    pub(in crate::session) fn count<'a>(
        &mut self,
        processes: impl Iterator<Item = (u64, &'a ProcessHandle)>,
    ) {
        let work = Work::begin();
        for (image, process) in processes {
            if let Some(open) = descriptors::count(process) {
                self.by_image.entry(image).or_default().enter(open);
            }
        }
        self.next = Some(Instant::now() + REST.max(work.taken() * SHARE));
    }

    /// Forgets an image that is gone.
    pub(in crate::session) fn forget(&mut self, image: u64) {
        self.by_image.remove(&image);
    }

    /// Those of an image.
    pub(in crate::session) fn rises(&self, image: u64) -> Rises {
        self.by_image.get(&image).copied().unwrap_or_default()
    }
}

impl Rises {
    /// Enters how many are open now.
    pub fn enter(&mut self, open: u64) {
        let Some(most) = self.most.replace(self.most.unwrap_or(0).max(open)) else {
            return;
        };
        self.looks += 1;
        if open > most {
            self.risen += 1;
            self.last_risen = self.looks;
        }
    }
}

/// What grew; none if nothing did.
pub fn compare(
    before: Option<&Descriptors>,
    after: &Descriptors,
    rises: Rises,
) -> Option<DescriptorBalance> {
    let nothing = Descriptors::default();
    let before = before.unwrap_or(&nothing);
    let balance = DescriptorBalance {
        open_start: before.open,
        open_end: after.open,
        limit: None,
        looks: rises.looks,
        risen: rises.risen,
        last_risen: rises.last_risen,
        kinds: kinds(before, after),
        file_bytes_start: before.file_bytes(),
        file_bytes_end: after.file_bytes(),
        files: files(before, after),
        is_cut: !(before.is_whole() && after.is_whole()),
    };
    let grew = after.open > before.open || !balance.files.is_empty();
    grew.then_some(balance)
}

fn kinds(before: &Descriptors, after: &Descriptors) -> Vec<GrownDescriptors> {
    let grown = after.kinds.iter().filter_map(|(kind, count)| {
        let growth = count.saturating_sub(before.kinds.get(kind).copied().unwrap_or(0));
        (growth > 0).then(|| GrownDescriptors {
            kind: kind.clone(),
            growth,
        })
    });
    let mut grown: Vec<_> = grown.collect();
    grown.sort_by_key(|kind| Reverse(kind.growth));
    grown.truncate(MAX_TOLD);
    grown
}

/// Files that differ in digits alone are told together.
fn files(before: &Descriptors, after: &Descriptors) -> Vec<GrownFile> {
    let mut grown: BTreeMap<String, GrownFile> = BTreeMap::new();
    for (id, file) in &after.files {
        let had = before.files.get(id).map_or(0, |file| file.bytes);
        let growth = file.bytes.saturating_sub(had);
        if growth > 0 {
            enter(grown.entry(alike(&file.name)).or_default(), file, growth);
        }
    }
    let mut grown: Vec<_> = grown
        .into_iter()
        .map(|(name, file)| match file.count {
            1 => file,
            _ => GrownFile { name, ..file },
        })
        .collect();
    grown.sort_by_key(|file| Reverse(file.growth));
    grown.truncate(MAX_TOLD);
    grown
}

fn enter(sum: &mut GrownFile, file: &MemoryFile, growth: u64) {
    sum.name.clone_from(&file.name);
    sum.count += 1;
    sum.growth = sum.growth.saturating_add(growth);
}

/// A name with a star for each run of digits.
fn alike(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        match letter {
            '0'..='9' if text.ends_with('*') => {}
            '0'..='9' => text.push('*'),
            _ => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(kinds: &[(&str, u64)], files: &[(u64, &str, u64)]) -> Descriptors {
        Descriptors {
            open: kinds.iter().map(|(_, count)| count).sum(),
            kinds: kinds
                .iter()
                .map(|(kind, count)| ((*kind).into(), *count))
                .collect(),
            files: files
                .iter()
                .map(|(inode, name, bytes)| {
                    let name = (*name).into();
                    (
                        (1, *inode),
                        MemoryFile {
                            name,
                            bytes: *bytes,
                        },
                    )
                })
                .collect(),
        }
    }

    #[test]
    fn what_grew_is_told_by_kind_and_file() {
        let before = open(
            &[("socket", 3), ("pipe", 2)],
            &[(7, "/dev/shm/spool", 4096)],
        );
        let after = open(
            &[("socket", 40), ("pipe", 1), ("memfd", 2)],
            &[
                (7, "/dev/shm/spool", 8192),
                (8, "/memfd:frame-1 (deleted)", 40_960),
                (9, "/memfd:frame-22 (deleted)", 4096),
            ],
        );
        let balance = compare(Some(&before), &after, Rises::default()).unwrap();
        assert_eq!((balance.open_start, balance.open_end), (5, 43));
        let kinds = balance.kinds.iter().map(|it| (&*it.kind, it.growth));
        assert_eq!(kinds.collect::<Vec<_>>(), [("socket", 37), ("memfd", 2)]);
        let files = balance.files.iter();
        let files = files.map(|it| (&*it.name, it.count, it.growth));
        let expected = [
            ("/memfd:frame-* (deleted)", 2, 45_056),
            ("/dev/shm/spool", 1, 4096),
        ];
        assert_eq!(files.collect::<Vec<_>>(), expected);
        assert_eq!(compare(Some(&after), &after, Rises::default()), None);
    }

    #[test]
    fn more_than_at_any_look_before_is_a_rise() {
        let mut rises = Rises::default();
        for open in [10, 11, 10, 11, 12, 9] {
            rises.enter(open);
        }
        assert_eq!((rises.looks, rises.risen, rises.last_risen), (5, 2, 4));
    }
}
