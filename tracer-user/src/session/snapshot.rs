//! What was traced until a moment, and the report that it becomes once its frames
//! have names.
//!
//! Names come from files, which takes time, and which anybody may have made: all
//! that is needed for that is here, so that another thread can do it.

use std::sync::Arc;

use super::holder_names::name_blocks;
use super::image_paths::one_for_each_path;
use super::java_samples::NamelessSamples;
use crate::grouping::{Rules, group_report};
use crate::holders::Namer;
use crate::model::{
    BudgetReport, Frame, MemoryKind, Module, Report, Share, Site, StackEnd, Stacks, Thread,
};
use crate::process::code::CodeSpace;
use crate::process::numbered::NumberedFiles;
use crate::report::long_names;
use crate::symbolize::Symbolizer;
use crate::targets::share::{self, Shares};
use crate::window::collect::{CollectedSite, lifetime_buckets};
use crate::window::windows::Windows;

/// In the place of the function that called the kernel, where the path does so.
const SYSTEM_CALL: &str = "[system call]";

/// What was traced until a moment.
pub struct Snapshot {
    /// All of the report but sites, modules and names.
    pub(super) report: Report,
    /// The sites.
    pub(super) groups: Vec<NamelessGroup>,
    /// Where objects of Java heaps were allocated.
    pub(super) samples: Vec<NamelessSamples>,
    /// The files that words of stacks name.
    pub(super) files: NumberedFiles,
    /// What was not searched for holders, and why.
    pub(super) unsearched: Vec<String>,
    /// When the run began, nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) began: u64,
}

/// Sites of a group of processes.
pub struct NamelessGroup {
    /// The index of the process in the report that stands for the group.
    pub process: usize,
    /// Its code.
    pub code: Arc<CodeSpace>,
    /// The sites.
    pub sites: Vec<NamelessSite>,
}

/// A site whose frames have no names yet.
pub struct NamelessSite {
    /// What is counted.
    pub site: CollectedSite,
    /// The code of the image that made it.
    pub code: Arc<CodeSpace>,
    /// How many garbage collections its oldest block survived, in a JVM.
    pub survived: Option<u32>,
}

impl Snapshot {
    /// The report, with names. `windows` tells what is new since the last one; of
    /// the end of a run there is no window. Names that `rules` mean become one.
    pub fn report(
        self,
        symbolizer: &mut Symbolizer,
        windows: Option<&mut Windows>,
        rules: &Rules,
    ) -> Report {
        let mut report = self.report;
        let mut groups = self.groups;
        symbolizer.begin(self.files);
        if let Some(windows) = windows {
            let sites = groups.iter_mut().flat_map(|group| &mut group.sites);
            let is_beside = !report.settings.growth;
            let counts = |site: &&mut CollectedSite| !is_beside || site.kind != MemoryKind::Page;
            let mut sites: Vec<_> = sites.map(|it| &mut it.site).filter(counts).collect();
            let mut window = windows.next(report.duration, &mut sites);
            windows.add_resident(&mut window, &report.balance);
            report.window = Some(window);
        }
        let mut namer = Namer::default();
        for group in groups {
            let NamelessGroup {
                process,
                code,
                sites,
            } = group;
            let paths = one_for_each_path(sites);
            report
                .modules
                .extend(used_modules(symbolizer, process, &code, &paths));
            for (nameless, end) in &paths {
                let mut site = named(nameless, *end, (process, self.began), symbolizer);
                site.holders = namer.holders(&nameless.site.holders, &self.unsearched);
                report.sites.push(site);
            }
        }
        for samples in self.samples {
            samples.add_to(&mut report.java_heap, symbolizer);
        }
        report.shortened = symbolizer.shortened();
        group_report(&mut report, rules);
        mark_beginning(&mut report);
        report.sites.sort_by_key(Site::order);
        set_pages_apart(&mut report);
        for (id, site) in report.sites.iter_mut().enumerate() {
            site.id = id as u64 + 1;
        }
        name_blocks(&mut report);
        report.stacks = Stacks::of(&report.sites);
        long_names::cut(&mut report, long_names::MAX_WRITTEN);
        report
    }
}

/// Where only the beginning of the run was followed, blocks were counted one by one: there
/// are no less than that.
fn mark_beginning(report: &mut Report) {
    let budget = report.budget.as_ref();
    if !budget.is_some_and(BudgetReport::is_of_beginning) {
        return;
    }
    let blocks = report.sites.iter_mut();
    for site in blocks.filter(|site| site.kind == MemoryKind::Heap) {
        site.errors = None;
        site.lower_bound = true;
    }
}

/// Where pages were followed beside allocations, they are in a table of their own.
fn set_pages_apart(report: &mut Report) {
    if report.settings.growth {
        return;
    }
    let sites = std::mem::take(&mut report.sites).into_iter();
    let (pages, others) = sites.partition(|site| site.kind == MemoryKind::Page);
    report.sites = others;
    if let Some(growth) = &mut report.growth {
        growth.sites = pages;
        for (id, site) in growth.sites.iter_mut().enumerate() {
            site.id = id as u64 + 1;
        }
    }
}

/// A site with names.
fn named(
    nameless: &NamelessSite,
    stack_end: StackEnd,
    (process, began): (usize, u64),
    symbolizer: &mut Symbolizer,
) -> Site {
    let NamelessSite {
        site,
        code,
        survived,
    } = nameless;
    let since = |time: u64| seconds(time.saturating_sub(began));
    let names = site.names.as_deref().unwrap_or_default();
    Site {
        id: 0,
        process,
        kind: site.kind,
        live_bytes: site.live.1,
        live_count: site.live.0,
        allocated_bytes: site.allocated.1,
        allocated_count: site.allocated.0,
        freed_bytes: site.freed.1,
        freed_count: site.freed.0,
        oldest_age: (site.shares.count > 0).then(|| seconds(site.shares.age)),
        oldest_survived: *survived,
        first_seen: since(site.seen.0),
        last_seen: since(site.seen.1),
        lifetimes: lifetime_buckets(&site.lifetimes),
        ages: lifetime_buckets(&site.shares.ages.counts()),
        curve: site.curve.clone(),
        verdict: None,
        confidence: None,
        resident_bytes: site.resident.map(|resident| resident.now),
        resident_peak: site.resident.map(|resident| resident.peak),
        resident_looks: site.resident.map_or(0, |resident| resident.looks),
        resident_rises: site.resident.map_or(0, |resident| resident.rises),
        files: site.files.clone(),
        pages: site.pages.clone(),
        stacks: site.stacks,
        errors: site.estimates.map(|estimates| estimates.errors()),
        survival: site.survival,
        holders: None,
        indices: site.indices.clone(),
        lower_bound: site.untracked > 0,
        stack_end,
        processes: site.shares.processes,
        left_bytes: left_bytes(&site.shares),
        shares: shares(&site.shares),
        window: site.window,
        thread: site.thread.as_ref().map(|thread| Thread {
            id: thread.id,
            name: thread.name.clone(),
        }),
        frames: match site.kind {
            MemoryKind::Mapping | MemoryKind::FileMapping | MemoryKind::ThreadStack => {
                called(symbolizer.frames(code, &site.frames, names, site.seen.0))
            }
            _ => symbolizer.frames(code, &site.frames, names, site.seen.0),
        },
    }
}

/// The functions by which C libraries call the kernel for memory and threads.
const WRAPPERS: [&str; 19] = [
    "mmap",
    "mmap64",
    "__mmap",
    "__mmap64",
    "mremap",
    "__mremap",
    "brk",
    "__brk",
    "sbrk",
    "__sbrk",
    "shmat",
    "mprotect",
    "__mprotect",
    "syscall",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
    "__clone_internal",
];

/// What follows the path is the function that called the kernel, in one frame. A
/// program that does so by itself has none, so the kernel stands for it.
fn called(mut frames: Vec<Frame>) -> Vec<Frame> {
    let is_wrapper = |frame: &Frame| {
        let name = frame.function.as_deref();
        name.is_some_and(|name| WRAPPERS.contains(&name))
    };
    let inlined = frames.iter().rev().take_while(|frame| frame.inlined);
    let outer = frames.len().saturating_sub(1 + inlined.count());
    match frames.get(outer) {
        Some(frame) if is_wrapper(frame) => frames.truncate(outer + 1),
        Some(_) => frames.push(Frame {
            function: Some(SYSTEM_CALL.into()),
            ..Frame::default()
        }),
        None => {}
    }
    frames
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// What processes held when they ended.
fn left_bytes(shares: &Shares) -> u64 {
    let counted = (0, shares.ended_bytes);
    shares.ended_estimate.or_counted(counted).1
}

/// What single processes hold.
fn shares(shares: &Shares) -> Vec<Share> {
    let share = |share: &share::Share| {
        let (live_count, live_bytes) = share.estimate.or_counted((share.count, share.bytes));
        Share {
            pid: share.pid,
            live_bytes,
            live_count,
            ended: share.ended,
        }
    };
    shares.singly().iter().map(share).collect()
}

pub fn stack_end(end: u32) -> StackEnd {
    use tracer_ebpf::stack::StackEnd as Kernel;
    let known = usize::try_from(end)
        .ok()
        .and_then(|number| Kernel::ALL.get(number));
    match known {
        Some(Kernel::Start) => StackEnd::Start,
        Some(Kernel::TooDeep) => StackEnd::TooDeep,
        Some(Kernel::Unreadable) => StackEnd::Unreadable,
        Some(Kernel::NoMapping) => StackEnd::NoMapping,
        Some(Kernel::NoRowYet) => StackEnd::NoRowYet,
        Some(Kernel::NoRow) => StackEnd::NoRow,
        Some(Kernel::NoFramePointer) => StackEnd::NoFramePointer,
        Some(Kernel::Hijacked) => StackEnd::Hijacked,
        Some(Kernel::Unsupported) => StackEnd::Unsupported,
        Some(Kernel::StartByFramePointers) => StackEnd::StartByFramePointers,
        Some(Kernel::JavaCode) => StackEnd::JavaCode,
        Some(Kernel::Continuation) => StackEnd::Continuation,
        Some(Kernel::JavaLayout) => StackEnd::JavaLayout,
        Some(Kernel::BadReturn) | None => StackEnd::BadReturn,
    }
}

fn used_modules(
    symbolizer: &mut Symbolizer,
    process: usize,
    code: &CodeSpace,
    sites: &[(NamelessSite, StackEnd)],
) -> Vec<Module> {
    symbolizer.modules(
        process,
        code,
        sites
            .iter()
            .map(|(it, _)| (it.site.frames.as_slice(), it.site.seen.0)),
    )
}
