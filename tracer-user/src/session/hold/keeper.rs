//! The thread that holds programs by ptrace: it sees to every stop of theirs.
//!
//! When it ends, the kernel lets all of them go at once, wherever they are, and
//! interrupts none: that they go is its end, or that we are killed. For that no
//! stop of theirs may leave anything behind: there are no breakpoints in
//! them, and the one signal that we send is ignored by default.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tracer_ebpf::held;

use super::ptrace::{self, Reason, Status, Waited};

/// A program whose loader has told nothing by then goes on without being
/// looked at.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer is waited for before other threads are looked after.
const PAUSE: Duration = Duration::from_micros(200);

/// Where a signal of the kernel's own comes from (`SI_KERNEL`).
const SI_KERNEL: i32 = 0x80;

/// Why a thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its process called `exec`.
    Exec,
    /// It mapped code while its loader is at work.
    Mapped,
    /// Its loader has all libraries, whose code it has not run yet.
    Loaded,
    /// It is about to call ptrace.
    Traces,
    /// It made a thread, of which one wanted to know.
    Thread,
    /// It ends its process, which is the first one; all memory is there still.
    Ends,
}

/// A thread that waits to be told to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The thread.
    pub thread: i32,
    /// Its process.
    pub process: u32,
    /// Why it waits.
    pub why: Why,
}

/// Lets a thread go on.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The stop that is answered.
    pub stop: Stop,
    /// Whether its process's loader goes on mapping libraries before it runs
    /// any code of theirs.
    pub starts: bool,
    /// Whether it is to stop when it makes a thread.
    pub watches_threads: bool,
}

/// A thread that is held.
#[derive(Debug, Clone, Copy)]
struct Thread {
    process: i32,
    start: Option<Start>,
}

/// A process whose loader is at work: it has one thread.
#[derive(Debug, Clone, Copy)]
struct Start {
    is_in_call: bool,
    until: Instant,
}

/// All threads that are held.
pub struct Keeper {
    /// The process that was told to call `exec`.
    root: i32,
    follow: bool,
    threads: HashMap<i32, Thread>,
    /// Processes that are to be let go as soon as they stop.
    unwanted: HashSet<i32>,
    /// Processes that stop when they make a thread.
    watched: HashSet<i32>,
    has_begun: bool,
    asked: usize,
    told: Told,
    stops: UnboundedSender<Stop>,
    answers: Receiver<Answer>,
    is_over: Arc<AtomicBool>,
    is_let_go: Arc<AtomicBool>,
    status: Arc<OnceLock<i32>>,
}

/// What is wished of a keeper.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// All that come from the first process are held, too.
    pub follow: bool,
    /// The first process waits when it ends.
    pub waits_at_end: bool,
}

/// Says why the kernel side has sent a signal to a thread, if it did and nobody
/// has asked since.
pub type Told = Box<dyn FnMut(u32) -> Option<u32> + Send>;

/// How the keeper and its owner hear of each other.
pub struct Line {
    /// Threads that were sent a signal by the kernel side.
    pub told: Told,
    /// Where stops go.
    pub stops: UnboundedSender<Stop>,
    /// Where answers come from.
    pub answers: Receiver<Answer>,
    /// Set when everything is to be let go.
    pub is_over: Arc<AtomicBool>,
    /// Set when nobody is held any more.
    pub is_let_go: Arc<AtomicBool>,
    /// How the first process ended, as `wait` tells it: whom the keeper has
    /// waited for, nobody else can.
    pub status: Arc<OnceLock<i32>>,
}

impl Keeper {
    /// Takes hold of a child that waits to call `exec`. It goes on as before.
    ///
    /// # Errors
    /// Fails where that is not allowed.
    pub fn take(root: i32, wishes: Wishes, line: Line) -> std::io::Result<Self> {
        let Wishes {
            follow,
            waits_at_end,
        } = wishes;
        let mut options =
            libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;
        if follow {
            options |= libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
        }
        if waits_at_end {
            options |= libc::PTRACE_O_TRACEEXIT;
        }
        ptrace::seize(root, options)?;
        let thread = Thread {
            process: root,
            start: None,
        };
        Ok(Self {
            root,
            follow,
            threads: HashMap::from([(root, thread)]),
            unwanted: HashSet::new(),
            watched: HashSet::new(),
            has_begun: false,
            asked: 0,
            told: line.told,
            stops: line.stops,
            answers: line.answers,
            is_over: line.is_over,
            is_let_go: line.is_let_go,
            status: line.status,
        })
    }

    /// Sees to all stops until it is told to end or nobody is held any more.
    pub fn keep(mut self) {
        while !self.is_over.load(Ordering::Acquire) {
            while let Ok(answer) = self.answers.try_recv() {
                self.answered(answer);
            }
            match self.wait() {
                Waited::Status(status) => self.see_to(status),
                Waited::Interrupted => {}
                Waited::Nothing => match self.answers.recv_timeout(PAUSE) {
                    Ok(answer) => self.answered(answer),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                Waited::Nobody => {
                    self.is_let_go.store(true, Ordering::Release);
                    return;
                }
            }
        }
    }

    /// Who cannot call `exec` is left to who started it.
    fn wait(&self) -> Waited {
        let blocks = self.asked == 0;
        match self.has_begun {
            true => ptrace::wait(blocks),
            false => ptrace::wait_to_stop(self.root, blocks),
        }
    }

    fn see_to(&mut self, status: Status) {
        let thread = status.thread;
        match status.reason() {
            Reason::End => self.ended(status),
            Reason::Exec => self.executed(thread),
            Reason::Clone => self.made_thread(thread),
            Reason::Fork => {
                if let Some(child) = ptrace::message(thread) {
                    self.threads.entry(child).or_insert(Thread::new(child));
                }
                self.go_on(thread, 0);
            }
            Reason::Exiting => self.exiting(thread),
            Reason::Begin => self.began(thread),
            Reason::Stopped => ptrace::go_on(libc::PTRACE_LISTEN, thread, 0),
            Reason::Call => self.called(thread),
            Reason::Signal(signal) => self.signalled(thread, signal),
        }
    }

    /// The other threads of its process are gone a moment later, or are already.
    fn exiting(&mut self, thread: i32) {
        let process = self.process_of(thread);
        match process == self.root && ends_its_process(thread) {
            true => self.ask(thread, process, Why::Ends),
            false => self.go_on(thread, 0),
        }
    }

    fn ended(&mut self, status: Status) {
        self.threads.remove(&status.thread);
        self.unwanted.remove(&status.thread);
        self.watched.remove(&status.thread);
        let _never_told = (self.told)(status.thread.cast_unsigned());
        if status.thread == self.root {
            let _ended_before = self.status.set(status.raw);
        }
    }

    /// The process has one thread now, by the process's own id.
    fn executed(&mut self, process: i32) {
        self.has_begun = true;
        self.watched.remove(&process);
        self.threads.retain(|_, thread| thread.process != process);
        let start = Start {
            // Its return from `exec` is the next stop of a system call.
            is_in_call: true,
            until: Instant::now() + PATIENCE,
        };
        let thread = Thread {
            process,
            start: Some(start),
        };
        self.threads.insert(process, thread);
        self.ask(process, process, Why::Exec);
    }

    fn made_thread(&mut self, thread: i32) {
        let process = self.process_of(thread);
        if let Some(new) = ptrace::message(thread) {
            let made = match is_thread_of(new, process) {
                true => Thread::new(process),
                false => Thread::new(new),
            };
            if made.process == new && !self.follow {
                self.unwanted.insert(new);
            }
            self.threads.insert(new, made);
        }
        if self.watched.contains(&process) {
            self.ask(thread, process, Why::Thread);
        } else {
            self.go_on(thread, 0);
        }
    }

    fn began(&mut self, thread: i32) {
        // Its maker may tell of it only afterwards.
        let process = self.process_of(thread);
        if self.unwanted.remove(&thread)
            || (process == thread && !self.follow && process != self.root)
        {
            self.threads.remove(&thread);
            ptrace::go_on(libc::PTRACE_DETACH, thread, 0);
            return;
        }
        self.go_on(thread, 0);
    }

    fn called(&mut self, thread: i32) {
        let process = self.process_of(thread);
        let start = self.threads.get_mut(&thread);
        let Some(start) = start.and_then(|thread| thread.start.as_mut()) else {
            self.go_on(thread, 0);
            return;
        };
        start.is_in_call = !start.is_in_call;
        let has_returned = !start.is_in_call;
        if has_returned && has_mapped_code(thread) {
            self.ask(thread, process, Why::Mapped);
        } else {
            self.go_on(thread, 0);
        }
    }

    fn signalled(&mut self, thread: i32, signal: i32) {
        let Some(why) = self.why_ours(thread, signal) else {
            self.go_on(thread, signal);
            return;
        };
        let process = self.process_of(thread);
        self.ask(thread, process, why);
    }

    /// Why the kernel side has sent a signal, if it did. Each such signal is
    /// taken away once.
    fn why_ours(&mut self, thread: i32, signal: i32) -> Option<Why> {
        if signal != held::SIGNAL.cast_signed() || ptrace::signal_code(thread) != Some(SI_KERNEL) {
            return None;
        }
        Some(match (self.told)(thread.cast_unsigned())? {
            held::PTRACE => Why::Traces,
            _ => Why::Loaded,
        })
    }

    fn ask(&mut self, thread: i32, process: i32, why: Why) {
        let stop = Stop {
            thread,
            process: process.cast_unsigned(),
            why,
        };
        if self.stops.send(stop).is_ok() {
            self.asked += 1;
        } else {
            self.go_on(thread, 0);
        }
    }

    fn answered(&mut self, answer: Answer) {
        self.asked -= 1;
        let Stop {
            thread, process, ..
        } = answer.stop;
        if answer.watches_threads {
            self.watched.insert(process.cast_signed());
        } else {
            self.watched.remove(&process.cast_signed());
        }
        if !answer.starts
            && let Some(thread) = self.threads.get_mut(&thread)
        {
            thread.start = None;
        }
        self.go_on(thread, 0);
    }

    /// While its loader is at work it stops at system calls, and else never.
    fn go_on(&mut self, thread: i32, signal: i32) {
        let known = self.threads.get_mut(&thread);
        let starts = known.is_some_and(|known| {
            known.start = known.start.filter(|start| Instant::now() < start.until);
            known.start.is_some()
        });
        let how = if starts {
            libc::PTRACE_SYSCALL
        } else {
            libc::PTRACE_CONT
        };
        ptrace::go_on(how, thread, signal);
    }

    fn process_of(&mut self, thread: i32) -> i32 {
        let known = self.threads.entry(thread);
        known
            .or_insert_with(|| Thread::new(process_of(thread).unwrap_or(thread)))
            .process
    }
}

impl Thread {
    fn new(process: i32) -> Self {
        Self {
            process,
            start: None,
        }
    }
}

fn is_thread_of(thread: i32, process: i32) -> bool {
    Path::new(&format!("/proc/{process}/task/{thread}")).exists()
}

/// The process that a thread is of.
fn process_of(thread: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// Whether a thread is in the system call that ends its process. One that a signal ends is
/// not.
fn ends_its_process(thread: i32) -> bool {
    let registers = ptrace::registers(thread);
    registers.is_some_and(|it| it.orig_rax.cast_signed() == libc::SYS_exit_group)
}

/// Whether the system call that just returned mapped executable memory.
fn has_mapped_code(thread: i32) -> bool {
    let Some(registers) = ptrace::registers(thread) else {
        return false;
    };
    let is = |number: libc::c_long| registers.orig_rax.cast_signed() == number;
    let is_executable = registers.rdx & libc::PROT_EXEC as u64 != 0;
    (is(libc::SYS_mmap) || is(libc::SYS_mprotect)) && is_executable
}
