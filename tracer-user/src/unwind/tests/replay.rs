//! A stack of our own, unwound by rows and by the kernel side's own step: the
//! same frames as the standard library's unwinder finds.

use std::arch::asm;
use std::collections::HashMap;
use std::fs::File;

use rustix::fs::{CWD, Mode, OFlags, openat};
use tracer_ebpf::rule::Rule;
use tracer_ebpf::step::{Frame, Memory, Registers};

use crate::process::file::RegularFile;
use crate::process::maps::{MappedRange, read_executable};
use crate::unwind::Table;

/// Deeper stacks are not expected here.
const DEEPEST: usize = 200;

/// A stack as it was: registers, its words, and what another unwinder says.
struct Recording {
    registers: Registers,
    words: Vec<u64>,
    expected: Vec<u64>,
}

impl Memory for &Recording {
    fn word(&mut self, address: u64) -> Option<u64> {
        let index = address.checked_sub(self.registers.sp)? / 8;
        self.words.get(usize::try_from(index).ok()?).copied()
    }

    fn near(&self, address: u64) -> Option<u64> {
        let mut recording = *self;
        recording.word(address)
    }
}

/// Records the stack of whoever calls.
#[inline(never)]
fn record() -> Recording {
    let (ip, sp, bp, bx): (u64, u64, u64, u64);
    // SAFETY: it only reads registers.
    unsafe {
        asm!(
            "lea {ip}, [rip]",
            "mov {sp}, rsp",
            "mov {bp}, rbp",
            "mov {bx}, rbx",
            ip = out(reg) ip,
            sp = out(reg) sp,
            bp = out(reg) bp,
            bx = out(reg) bx,
            options(nomem, nostack)
        );
    }
    let registers = Registers { ip, sp, bp, bx };
    let end = stack_end(sp);
    let words = (sp..end).step_by(8);
    // SAFETY: from the stack pointer to its mapping's end the stack is there,
    // and only this thread writes to it.
    let words = words.map(|address| unsafe { (address as *const u64).read_volatile() });
    Recording {
        registers,
        words: words.collect(),
        expected: others(),
    }
}

/// The end of the mapping that a stack is in.
fn stack_end(sp: u64) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let ranges = maps.lines().map(|line| {
        let (start, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        number(start)..number(end)
    });
    ranges
        .into_iter()
        .find(|range| range.contains(&sp))
        .unwrap()
        .end
}

unsafe extern "C" {
    fn backtrace(buffer: *mut u64, size: i32) -> i32;
}

/// The stack by libgcc's unwinder; this function's own frames come first.
#[inline(never)]
fn others() -> Vec<u64> {
    let mut frames = [0; DEEPEST];
    let size = i32::try_from(DEEPEST).unwrap();
    // SAFETY: glibc's backtrace(3) writes at most as many as there is room for.
    let count = unsafe { backtrace(frames.as_mut_ptr(), size) };
    frames[..usize::try_from(count).unwrap()].to_vec()
}

/// The tables of this process's files.
struct Tables {
    ranges: Vec<MappedRange>,
    tables: HashMap<std::path::PathBuf, Table>,
}

impl Tables {
    fn own() -> Self {
        let ranges = read_executable(File::open("/proc/self/maps").unwrap()).unwrap();
        let paths = ranges.iter().filter_map(|range| range.name.path());
        let tables = paths.map(|path| {
            let located = openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap();
            let file = RegularFile::open(&located).unwrap();
            (path.to_owned(), Table::read(&file, path).unwrap().unwrap())
        });
        Tables {
            tables: tables.collect(),
            ranges,
        }
    }

    fn rule(&self, address: u64, is_return: bool) -> Rule {
        let holds = |range: &&MappedRange| (range.start.0..range.end.0).contains(&address);
        let range = self.ranges.iter().find(holds).unwrap();
        let table = &self.tables[range.name.path().unwrap()];
        let offset = range.file_offset.0 + (address - range.start.0);
        let segment = table.segments.iter().find(|segment| {
            let start = segment.offset.0 & !0xfff;
            (start..segment.offset.0 + segment.size).contains(&offset)
        });
        let segment = segment.unwrap();
        let address = segment.address.0 + offset - segment.offset.0;
        if is_return {
            super::returning(table, address)
        } else {
            super::full(table, address)
        }
    }
}

/// All frames' addresses by rows and steps, to the outermost one.
fn unwind(tables: &Tables, recording: &Recording) -> Vec<u64> {
    let mut frame = Frame::default();
    let first = tables.rule(recording.registers.ip, false);
    frame.begin(recording.registers, first);
    let mut frames = vec![frame.ip()];
    while frame.rule() != Rule::END {
        assert!(frames.len() < DEEPEST);
        let result = frame.step(&mut &*recording);
        assert_eq!(result, Ok(()), "after {frames:x?}");
        frames.push(frame.ip());
        frame.set_rule(tables.rule(frame.ip(), true));
    }
    frames
}

/// Checks a stack, and says how many frames it has.
fn check(recording: &Recording) -> usize {
    let frames = unwind(&Tables::own(), recording);
    // Theirs begins in `others`, and leaves `record` at another instruction.
    assert_eq!(frames[1..], recording.expected[2..]);
    frames.len()
}

#[test]
fn a_recorded_stack_is_whole() {
    // Called by libtest, which is called by a thread's start in glibc.
    assert!(check(&record()) > 8);
}

#[test]
fn a_deep_stack_through_the_c_library_is_whole() {
    extern "C" fn compare(_: *const libc::c_void, second: *const libc::c_void) -> i32 {
        // SAFETY: the address of the local below.
        let recording = unsafe { *second.cast::<*mut Option<Recording>>() };
        // SAFETY: likewise; nobody else looks at it meanwhile.
        unsafe { *recording = Some(record()) };
        0
    }
    fn sort(depth: u32) -> Recording {
        if depth > 0 {
            let recording = sort(depth - 1);
            return std::hint::black_box(recording);
        }
        let mut recording: Option<Recording> = None;
        let mut pointers = [&raw mut recording; 2];
        // SAFETY: two pointers, and a function that looks at pointers.
        unsafe { libc::qsort(pointers.as_mut_ptr().cast(), 2, 8, Some(compare)) };
        recording.unwrap()
    }
    assert!(check(&sort(40)) > 45);
}
