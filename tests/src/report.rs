//! A typed view of the tracer's JSON, and its comparison with a truth.

use std::ops::{Add, Deref};

use anyhow::{Context, Result, ensure};

use crate::model::{Frame, Loss, MemoryKind, Report, Site};
use crate::target::{Checked, Truth, TruthEntry};

/// A report with questions that tests ask.
#[derive(Debug, Clone)]
pub struct View {
    report: Report,
}

/// Sums over some sites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Blocks allocated.
    pub allocated_count: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Blocks freed.
    pub freed_count: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Blocks that are live.
    pub live_count: u64,
    /// Bytes that are live.
    pub live_bytes: u64,
}

impl Sums {
    /// The numbers of one site.
    pub fn of(site: &Site) -> Self {
        Self {
            allocated_count: site.allocated_count,
            allocated_bytes: site.allocated_bytes,
            freed_count: site.freed_count,
            freed_bytes: site.freed_bytes,
            live_count: site.live_count,
            live_bytes: site.live_bytes,
        }
    }

    /// Blocks of one size, none of them freed.
    pub fn live(size: u64, count: u64) -> Self {
        Self::blocks(size, count, 0)
    }

    /// Blocks of one size.
    pub fn blocks(size: u64, allocated: u64, freed: u64) -> Self {
        Self {
            allocated_count: allocated,
            allocated_bytes: allocated * size,
            freed_count: freed,
            freed_bytes: freed * size,
            live_count: allocated - freed,
            live_bytes: (allocated - freed) * size,
        }
    }
}

impl Add for Sums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            allocated_count: self.allocated_count + other.allocated_count,
            allocated_bytes: self.allocated_bytes + other.allocated_bytes,
            freed_count: self.freed_count + other.freed_count,
            freed_bytes: self.freed_bytes + other.freed_bytes,
            live_count: self.live_count + other.live_count,
            live_bytes: self.live_bytes + other.live_bytes,
        }
    }
}

impl Deref for View {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.report
    }
}

impl View {
    /// A view of a report.
    pub fn new(report: Report) -> Self {
        Self { report }
    }

    /// The sites with `function` somewhere in their call path.
    pub fn sites_with<'a>(&'a self, function: &'a str) -> impl Iterator<Item = &'a Site> {
        self.sites
            .iter()
            .filter(move |site| site.frames.iter().any(|frame| is(frame, function)))
    }

    /// The functions of the only path with blocks of a size, the innermost first, without
    /// libc's and inlined ones; and why there are no more.
    ///
    /// # Errors
    /// There is no such path, or there are several.
    pub fn own_path(&self, size: u64) -> Result<(Vec<String>, String)> {
        let is_it = |site: &&Site| site.allocated_bytes == site.allocated_count * size;
        let mut sites = self.sites.iter().filter(is_it);
        let site = sites.next().context("no path")?;
        ensure!(sites.next().is_none(), "several paths");
        let own = site.frames.iter().rev().filter(|frame| {
            let module = frame.module.as_deref().unwrap_or_default();
            !frame.inlined && !module.contains("libc")
        });
        let names = own.map(|frame| frame.function.as_deref().unwrap_or("?").to_owned());
        let end = serde_json::to_value(site.stack_end)?;
        Ok((names.collect(), end.as_str().context("no end")?.to_owned()))
    }

    /// Sums over all sites of one kind that [`View::sites_with`] finds; an
    /// empty name stands for all.
    pub fn sums(&self, function: &str, kind: MemoryKind) -> Sums {
        self.sums_where(|site| {
            site.kind == kind
                && (function.is_empty() || site.frames.iter().any(|frame| is(frame, function)))
        })
    }

    /// Sums over all sites of one kind whose blocks all have one size.
    pub fn sums_of_size(&self, size: u64, kind: MemoryKind) -> Sums {
        self.sums_where(|site| {
            site.kind == kind && site.allocated_bytes == site.allocated_count * size
        })
    }

    fn sums_where(&self, wanted: impl Fn(&Site) -> bool) -> Sums {
        self.sites
            .iter()
            .filter(|site| wanted(site))
            .map(Sums::of)
            .fold(Sums::default(), Add::add)
    }

    /// Heap sums of one process (an index into `processes`).
    pub fn heap_of_process(&self, process: usize, function: &str) -> Sums {
        self.sites_with(function)
            .filter(|site| site.process == process && site.kind == MemoryKind::Heap)
            .map(Sums::of)
            .fold(Sums::default(), Add::add)
    }

    /// Heap sums of the sites with `function`.
    pub fn heap(&self, function: &str) -> Sums {
        self.sums(function, MemoryKind::Heap)
    }

    /// How many events were lost, over all causes.
    pub fn lost(&self) -> u64 {
        self.occurred().iter().map(|loss| loss.count).sum()
    }

    /// The losses that occurred. What the kernel kept from us of any process on
    /// the machine is none: it says nothing of the one that is tested.
    pub fn occurred(&self) -> Vec<&Loss> {
        self.occurred_losses()
            .filter(|loss| loss.cause != "tracepoint_missed")
            .collect()
    }

    /// Compares every site of the truth with the report, and that the report
    /// has nothing else unless the truth says so.
    ///
    /// # Errors
    /// They differ; the message has both and the whole table.
    pub fn agrees_with(&self, truth: &Truth) -> Result<()> {
        self.sites_agree_with(truth)?;
        if !truth.others {
            self.has_nothing_but(truth)?;
        }
        ensure!(
            self.lost() == truth.losses,
            "{} events lost instead of {}: {:?}",
            self.lost(),
            truth.losses,
            self.occurred()
        );
        Ok(())
    }

    /// Compares every site of the truth with the report, and nothing else.
    ///
    /// # Errors
    /// They differ; the message has both and the whole table.
    pub fn sites_agree_with(&self, truth: &Truth) -> Result<()> {
        for entry in &truth.sites {
            let found = match entry.function.as_str() {
                "" => self.sums_of_size(entry.size, entry.kind),
                function => self.sums(function, entry.kind),
            };
            ensure!(
                entry.checked.admits(found, entry.sums()),
                "{:?} {}\n    is {found:?}\nreally {:?}\n{}",
                entry.kind,
                entry.function,
                entry.sums(),
                self.table()
            );
        }
        Ok(())
    }

    /// Whether the sums of the truth are the sums of the report: there is no
    /// site that the truth does not know.
    ///
    /// # Errors
    /// They differ; the message has both and the whole table.
    pub fn has_nothing_but(&self, truth: &Truth) -> Result<()> {
        for kind in [
            MemoryKind::Heap,
            MemoryKind::Mapping,
            MemoryKind::FileMapping,
            MemoryKind::ThreadStack,
        ] {
            let entries = || truth.sites.iter().filter(|entry| entry.kind == kind);
            let real = entries()
                .map(TruthEntry::sums)
                .fold(Sums::default(), Add::add);
            let found = self.sums("", kind);
            let promise = entries()
                .map(|entry| entry.checked)
                .max()
                .unwrap_or(Checked::All);
            ensure!(
                promise.admits(found, real),
                "all {kind:?}\n    is {found:?}\nreally {real:?}\n{}",
                self.table()
            );
        }
        Ok(())
    }

    /// The sites as text, for messages.
    pub fn table(&self) -> String {
        self.sites
            .iter()
            .map(|site| {
                let frames: Vec<&str> = site
                    .frames
                    .iter()
                    .map(|frame| frame.function.as_deref().unwrap_or("?"))
                    .collect();
                format!(
                    "{:?} live {}/{} allocated {}/{} freed {}/{} {}\n",
                    site.kind,
                    site.live_count,
                    site.live_bytes,
                    site.allocated_count,
                    site.allocated_bytes,
                    site.freed_count,
                    site.freed_bytes,
                    frames.join(";")
                )
            })
            .collect()
    }
}

impl TruthEntry {
    /// The truth as sums.
    pub fn sums(&self) -> Sums {
        Sums {
            allocated_count: self.allocated_count,
            allocated_bytes: self.allocated_bytes,
            freed_count: self.freed_count,
            freed_bytes: self.freed_bytes,
            live_count: self.allocated_count - self.freed_count,
            live_bytes: self.allocated_bytes - self.freed_bytes,
        }
    }
}

impl Checked {
    /// Whether what was found agrees with what is real, as far as promised.
    fn admits(self, found: Sums, real: Sums) -> bool {
        match self {
            Self::All => found == real,
            Self::Live => {
                (found.live_count, found.live_bytes) == (real.live_count, real.live_bytes)
            }
            Self::LiveBytes => found.live_bytes == real.live_bytes,
        }
    }
}

/// Whether a frame is of `function`: the whole demangled name, the name before
/// its parameters, or one part of its path.
fn is(frame: &Frame, function: &str) -> bool {
    let Some(name) = frame.function.as_deref() else {
        return false;
    };
    let path = name.split('(').next().unwrap_or(name);
    name == function || path.split("::").any(|part| part == function)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str) -> Frame {
        Frame {
            function: Some(function.into()),
            ..Frame::default()
        }
    }

    #[test]
    fn names_match_by_whole_parts() {
        assert!(is(&frame("leak"), "leak"));
        assert!(is(&frame("leak(int, char*)"), "leak"));
        assert!(is(&frame("shop::Cart<int>::add(int)"), "add"));
        assert!(is(&frame("rusty::leak_vectors"), "leak_vectors"));
        assert!(!is(&frame("leak_more"), "leak"));
        assert!(!is(&frame("f(shop::leak)"), "leak"));
        assert!(!is(&Frame::default(), "leak"));
    }

    #[test]
    fn sums_add_up() {
        let sums = Sums::blocks(7, 5, 2) + Sums::live(11, 1);
        assert_eq!(
            (
                sums.allocated_bytes,
                sums.freed_bytes,
                sums.live_bytes,
                sums.live_count
            ),
            (46, 14, 32, 4)
        );
    }
}
