//! New code, as the kernel tells of it: perf's side-band records of
//! executable mappings, `exec`, fork and exit.
//!
//! One event for each CPU watches all processes, and the reader picks those
//! it traces. Events for single processes would have to be opened for each
//! thread that exists and each CPU (2,000 descriptors for a JVM's 200 threads
//! on 10 CPUs), could miss a thread that starts meanwhile, and cannot have a
//! buffer when inherited by all CPUs at once. Executable mappings are rare
//! (about ten for each `exec` on the machine), so watching all is cheap.
//!
//! `build_id` is not asked for, because it would displace the device and
//! inode that tell which file was mapped.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag, Sampler};
use rustix::event::epoll;

use super::clock::monotonic_ns;
use super::maps::MappedRange;
use super::record;
use crate::privilege::capability::{EVENT, LOCK, with};

/// What all buffers may take, bytes.
const BUFFERS_BYTES: usize = 8 << 20;
/// The size of each CPU's buffer, bytes: 1 MiB has room for some 8,000 mappings, or for
/// 8,000 processes that begin and end, between two drains; where there are many CPUs, each
/// sees less of it. Of 256 KiB, 1,900 records were lost once when 3,000 processes came and
/// went on a machine of two cores that three other jobs shared.
const BUFFER_BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=1 << 20;

/// What happened. Pids are those of the tracer's namespace; times are
/// nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeEvent {
    /// Executable memory was mapped, or made executable.
    Map {
        /// The process.
        pid: u32,
        /// When.
        time_ns: u64,
        /// What and where.
        range: MappedRange,
    },
    /// A process replaced its image. Its new mappings follow.
    Exec {
        /// The process.
        pid: u32,
        /// When.
        time_ns: u64,
        /// The short name (`comm`).
        name: String,
    },
    /// A process was created. (A new thread is not reported.)
    Fork {
        /// The child.
        pid: u32,
        /// The process that made it.
        parent: u32,
        /// When.
        time_ns: u64,
    },
    /// A thread ended. The process ends with its last thread.
    Exit {
        /// The process.
        pid: u32,
        /// The thread.
        tid: u32,
        /// When.
        time_ns: u64,
    },
    /// Records were lost, of any process: read the mappings of every traced
    /// process again ([`refresh_from_pid`](super::code::CodeSpace::refresh_from_pid)).
    Lost {
        /// How many.
        count: u64,
        /// When it was noticed.
        time_ns: u64,
    },
}

impl CodeEvent {
    /// When it happened, nanoseconds of `CLOCK_MONOTONIC`.
    pub fn time_ns(&self) -> u64 {
        match self {
            CodeEvent::Map { time_ns, .. }
            | CodeEvent::Exec { time_ns, .. }
            | CodeEvent::Fork { time_ns, .. }
            | CodeEvent::Exit { time_ns, .. }
            | CodeEvent::Lost { time_ns, .. } => *time_ns,
        }
    }
}

/// The buffers of all CPUs that were online at the start. A CPU that comes
/// online later is not watched.
pub struct CodeWatch {
    buffers: Vec<Sampler>,
    /// The size of each, bytes.
    bytes: usize,
    /// Readable when any buffer has something new.
    news: OwnedFd,
    /// Events that were read but happened after the last drain began.
    held: Vec<CodeEvent>,
}

impl CodeWatch {
    /// Begins to watch. Open it before the mappings of any process are read,
    /// so that nothing falls in between.
    ///
    /// # Errors
    /// Fails without the privilege to watch all processes (`CAP_PERFMON`), or
    /// on a kernel without perf events.
    pub fn open() -> Result<Self> {
        let cpus = online_cpus()?;
        let bytes = buffer_bytes(cpus.len());
        let open_all = || {
            let buffers = cpus.into_iter().map(|cpu| open_buffer(cpu, bytes));
            buffers.collect::<Result<_>>()
        };
        let buffers: Vec<Sampler> = with(LOCK | EVENT, open_all)?;
        let news = all_of(&buffers).context("cannot wait for new code")?;
        Ok(CodeWatch {
            buffers,
            bytes,
            news,
            held: Vec::new(),
        })
    }

    /// A descriptor that is readable when something happened.
    ///
    /// # Errors
    /// Fails if there are no descriptors left.
    pub fn news(&self) -> Result<OwnedFd> {
        Ok(self.news.try_clone()?)
    }

    /// Has the descriptor that [`Self::news`] gives become readable too when
    /// something is written to `other`, an eventfd that nobody needs to read.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn also_of(&self, other: BorrowedFd<'_>) -> Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(
            &self.news,
            other,
            epoll::EventData::new_u64(0),
            flags,
        )?)
    }

    /// Kernel memory of the buffers, bytes.
    pub fn kernel_bytes(&self) -> usize {
        self.buffers.len() * self.bytes
    }

    /// Hands over what happened until now, of all processes, oldest first.
    ///
    /// Events that happen during the call are kept for the next, since other
    /// CPUs' buffers may hold older ones that were not read.
    pub fn drain(&mut self, sink: &mut dyn FnMut(CodeEvent)) {
        let now = monotonic_ns();
        let mut events = std::mem::take(&mut self.held);
        for buffer in &mut self.buffers {
            while let Some(record) = buffer.next_record() {
                let body = record.to_contiguous();
                events.extend(record::parse(record.ty(), record.misc(), &body));
            }
        }
        events.sort_by_key(CodeEvent::time_ns);
        let later = events.partition_point(|event| event.time_ns() <= now);
        self.held = events.split_off(later);
        events.into_iter().for_each(sink);
    }
}

/// One descriptor that stands for all buffers.
fn all_of(buffers: &[Sampler]) -> std::io::Result<OwnedFd> {
    let all = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for buffer in buffers {
        // SAFETY: the buffer's descriptor is open, and borrowed for the call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(buffer.as_raw_fd()) };
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&all, descriptor, epoll::EventData::new_u64(0), flags)?;
    }
    Ok(all)
}

/// The size of each CPU's buffer, where there are so many. The kernel wants powers of two.
fn buffer_bytes(cpus: usize) -> usize {
    let share = (BUFFERS_BYTES / cpus.max(1)).max(1).ilog2();
    (1 << share).clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end())
}

fn open_buffer(cpu: usize, bytes: usize) -> Result<Sampler> {
    Builder::new(Software::DUMMY)
        .any_pid()
        .one_cpu(cpu)
        .enabled(true)
        .clockid(Clock::MONOTONIC)
        .sample(SampleFlag::TIME)
        .sample_id_all(true)
        .mmap(true)
        .mmap2(true)
        .comm(true)
        .comm_exec(true)
        .task(true)
        .wakeup_watermark(1)
        .build()
        .and_then(|counter| counter.sampled(bytes))
        .with_context(|| {
            format!(
                "cannot watch new code on CPU {cpu} (perf_event_open): run as root, or grant \
                 CAP_PERFMON, and where kernel.perf_event_paranoid is above 2 (Debian) \
                 CAP_SYS_ADMIN too"
            )
        })
}

fn online_cpus() -> Result<Vec<usize>> {
    const ONLINE: &str = "/sys/devices/system/cpu/online";
    let list = std::fs::read_to_string(ONLINE).with_context(|| format!("cannot read {ONLINE}"))?;
    match parse_cpu_list(&list) {
        Some(cpus) if !cpus.is_empty() => Ok(cpus),
        _ => bail!(
            "{ONLINE} says {:?}, which is not a list of CPUs",
            list.trim()
        ),
    }
}

/// `0-3,8,10-11`
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    const MOST: usize = 1 << 16;
    let mut cpus = HashSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        (first <= last && last < MOST).then_some(())?;
        cpus.extend(first..=last);
    }
    let mut cpus: Vec<_> = cpus.into_iter().collect();
    cpus.sort_unstable();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::code::CodeSpace;
    use crate::process::file::ModuleFiles;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    #[test]
    fn buffers_are_large_where_there_are_few_and_bounded_where_there_are_many() {
        let sizes = [1, 2, 8, 9, 24, 32, 64, 4096].map(|cpus| buffer_bytes(cpus) >> 10);
        assert_eq!(sizes, [1024, 1024, 1024, 512, 256, 256, 256, 256]);
    }

    fn drained(watch: &mut CodeWatch) -> Vec<CodeEvent> {
        let mut events = Vec::new();
        watch.drain(&mut |event| events.push(event));
        events
    }

    #[test]
    fn cpu_lists_are_parsed() {
        assert_eq!(
            parse_cpu_list("0-3,8,10-11\n"),
            Some(vec![0, 1, 2, 3, 8, 10, 11])
        );
        assert_eq!(parse_cpu_list("0"), Some(vec![0]));
        for wrong in ["", "a", "3-1", "0-99999999999", "1,,2"] {
            assert_eq!(parse_cpu_list(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_short_process_is_seen_whole() {
        let mut watch = CodeWatch::open().unwrap();
        let before = monotonic_ns();
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let after = monotonic_ns();
        let events = drained(&mut watch);

        let position = |wanted: &dyn Fn(&CodeEvent) -> bool| events.iter().position(wanted);
        let fork = position(&|event| {
            matches!(event, CodeEvent::Fork { pid: p, parent, .. }
            if *p == pid && *parent == std::process::id())
        })
        .unwrap();
        let exec = position(&|event| {
            matches!(event, CodeEvent::Exec { pid: p, name, .. }
            if *p == pid && name == "true")
        })
        .unwrap();
        let libc = position(&|event| {
            matches!(event, CodeEvent::Map { pid: p, range, .. }
            if *p == pid && range.name.path().is_some_and(|path| path.ends_with("libc.so.6")))
        })
        .unwrap();
        let exit = position(&|event| {
            matches!(event, CodeEvent::Exit { pid: p, tid, .. }
            if *p == pid && *tid == pid)
        })
        .unwrap();
        assert!(fork < exec && exec < libc && libc < exit);
        assert!(events.is_sorted_by_key(CodeEvent::time_ns));
        for index in [fork, exec, libc, exit] {
            assert!((before..=after).contains(&events[index].time_ns()));
        }

        let CodeEvent::Map { range, .. } = &events[libc] else {
            panic!("not a mapping")
        };
        let path = range.name.path().unwrap();
        assert_eq!(range.file.inode, std::fs::metadata(path).unwrap().ino());
        assert!(
            range.file_offset.0 > 0,
            "code is not at the start of the file"
        );
    }

    /// Events alone, read after the process has exited, must lead to files.
    #[test]
    fn an_exited_process_can_still_be_symbolized() {
        let mut watch = CodeWatch::open().unwrap();
        let mut files = ModuleFiles::new();
        let own = CodeSpace::attach(std::process::id(), 0, &mut files).unwrap();
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let mut space = None;
        watch.drain(&mut |event| match event {
            CodeEvent::Fork { pid: p, .. } if p == pid => space = Some(own.fork(pid)),
            CodeEvent::Exec { pid: p, .. } if p == pid => {
                space = space.as_ref().map(CodeSpace::exec);
            }
            CodeEvent::Map {
                pid: p,
                time_ns,
                range,
            } if p == pid => {
                if let Some(space) = &mut space {
                    let start = range.start;
                    space.add(range, time_ns, &mut files);
                    let mapping = space.find(start, time_ns).unwrap();
                    let special = mapping.display_name().starts_with('[');
                    assert!(mapping.file.is_ok() || special, "{mapping:?}");
                }
            }
            _ => {}
        });
        assert!(space.unwrap().executable().unwrap().ends_with("true"));
    }

    #[test]
    fn an_overflow_is_told() {
        let mut watch = CodeWatch::open().unwrap();
        let size = std::num::NonZeroUsize::new(4096).unwrap();
        stay_on_this_cpu();
        for _ in 0..20_000 {
            map_and_unmap(size);
        }
        let mut events = drained(&mut watch);
        // The loss is told with the next record that finds room.
        map_and_unmap(size);
        events.extend(drained(&mut watch));

        let (mut seen, mut lost) = (0, 0);
        for event in events {
            match event {
                CodeEvent::Map { pid, .. } if pid == std::process::id() => seen += 1,
                CodeEvent::Lost { count, .. } => lost += count,
                _ => {}
            }
        }
        assert!(seen > 1000, "{seen} records");
        assert!(
            lost > 0 && seen + lost > 20_000,
            "{seen} records, {lost} lost"
        );
    }

    /// A buffer tells its loss with the next record of its own CPU.
    fn stay_on_this_cpu() {
        // SAFETY: the set is valid as zeros, and only this thread is moved.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut set);
            assert_eq!(
                libc::sched_setaffinity(0, size_of_val(&set), &raw const set),
                0
            );
        }
    }

    fn map_and_unmap(size: std::num::NonZeroUsize) {
        // SAFETY: a new private mapping, unmapped at once and never used.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(std::ptr::null_mut(), size.get(), protection, flags, -1, 0);
            assert_ne!(memory, libc::MAP_FAILED);
            libc::munmap(memory, size.get());
        }
    }
}
