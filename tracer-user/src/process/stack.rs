//! Where the threads of a process have their stacks: the mapping that a
//! thread's stack pointer is in.

use std::io::{self, Read};
use std::ops::Range;

use super::handle::ProcessHandle;
use super::maps;

/// `/proc/PID/task/TID/syscall` is one line.
const MAX_LINE: u64 = 4096;
/// How often a thread is asked that runs, and so does not tell.
const ASKED: usize = 5;

/// The readable and writable mappings of a process, in order.
#[derive(Debug, Default)]
pub struct Writable(Vec<Range<u64>>);

impl Writable {
    /// Reads them.
    ///
    /// # Errors
    /// Fails if the process is gone.
    pub fn read(process: &ProcessHandle) -> io::Result<Self> {
        let text = maps::text(process.open_proc("maps")?)?;
        let lines = text.split(|byte| *byte == b'\n');
        Ok(Writable(lines.filter_map(writable).collect()))
    }

    /// The mapping with an address in it, less what is known to be something
    /// else.
    pub fn around(&self, address: u64, known: &[Range<u64>]) -> Option<Range<u64>> {
        let mut mappings = self.0.iter();
        let mut range = mappings.find(|range| range.contains(&address))?.clone();
        for other in known {
            if other.contains(&address) {
                return None;
            }
            if other.end <= address {
                range.start = range.start.max(other.end);
            } else {
                range.end = range.end.min(other.start);
            }
        }
        Some(range)
    }
}

/// A thread's stack pointer, if it waits in the kernel: a thread that runs does
/// not tell (proc_pid_syscall(5)).
pub fn pointer(process: &ProcessHandle, tid: u32) -> Option<u64> {
    (0..ASKED).find_map(|_| {
        let mut line = String::new();
        let file = process.open_proc(&format!("task/{tid}/syscall")).ok()?;
        file.take(MAX_LINE).read_to_string(&mut line).ok()?;
        of_line(&line)
    })
}

/// `0 0x3 … 0x7ffd8a7c5d38 0x7f1a2b3c4d5e`: the last two words are the stack
/// pointer and where the thread goes on.
fn of_line(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace().rev();
    words.next()?;
    let digits = words.next()?.strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok()
}

/// `START-END rw…`
fn writable(line: &[u8]) -> Option<Range<u64>> {
    let line = std::str::from_utf8(line.get(..64.min(line.len()))?).ok()?;
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    (rest.starts_with("rw") && start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_thread_tells_where_its_stack_is() {
        let process = ProcessHandle::open(std::process::id()).unwrap();
        let (told, tell) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let local = 0_u8;
            // SAFETY: the call takes no arguments.
            let tid = unsafe { libc::gettid() }.unsigned_abs();
            told.send((tid, &raw const local as u64)).unwrap();
            stopped.recv().unwrap_err();
        });
        let (tid, local) = tell.recv().unwrap();
        let found = loop {
            if let Some(found) = pointer(&process, tid) {
                break found;
            }
        };
        let writable = Writable::read(&process).unwrap();
        let stack = writable.around(found, &[]).unwrap();
        assert!(stack.contains(&local), "{stack:x?} {local:x}");
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let line = "202 0x7f 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd8a7c5d38 0x7f1a2b3c4d5e\n";
        assert_eq!(of_line(line), Some(0x7ffd_8a7c_5d38));
        assert_eq!(of_line("-1 0x10 0x20\n"), Some(0x10));
        assert_eq!(of_line("running\n"), None);
        assert_eq!(of_line(""), None);
    }

    #[test]
    fn what_is_known_is_left_out() {
        let maps = [
            "1000-9000 rw-p 00000000 00:00 0 ",
            "9000-a000 r--p 00000000 00:00 0 ",
            "a000-b000 rw-p 0000",
            "b000-a000 rw-p 0000",
            "c000 rw-p",
        ];
        let writable = Writable(maps.iter().filter_map(|l| writable(l.as_bytes())).collect());
        assert_eq!(writable.around(0x5000, &[]), Some(0x1000..0x9000));
        let known = [0x1000..0x3000, 0x7000..0x8000];
        assert_eq!(writable.around(0x5000, &known), Some(0x3000..0x7000));
        assert_eq!(writable.around(0x2000, &known), None);
        assert_eq!(writable.around(0x9000, &[]), None);
        assert_eq!(writable.around(0xa000, &[]), Some(0xa000..0xb000));
    }
}
