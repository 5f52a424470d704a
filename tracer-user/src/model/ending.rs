//! How a process ended.

use serde::{Deserialize, Serialize};

/// Signals after which a tracer is under suspicion, if they come soon after its
/// probes: a breakpoint that nobody knows any more (TRAP), an instruction cut in
/// two (ILL, SEGV, BUS), an exception through a replaced return address (ABRT),
/// a system call of the kernel's trampoline that a filter forbids (SYS).
const SUSPICIOUS: [u8; 6] = [4, 5, 6, 7, 11, 31];

/// Seconds after the last probe came or went in which such a signal is
/// suspicious.
pub const SUSPICIOUS_SECONDS: f64 = 10.0;

/// Names of the signals 1 to 31 (signal(7), x86-64).
const SIGNALS: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// What `wait` tells of a process that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ended by itself, with this exit status.
    Status(u8),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: u8,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
}

impl Outcome {
    /// From the status as `wait` gives it (wait(2)).
    pub fn of_wait(status: u32) -> Self {
        let byte = |bits: u32| u8::try_from(bits & 0xff).unwrap_or(0);
        match byte(status & 0x7f) {
            0 => Self::Status(byte(status >> 8)),
            number => Self::Signal {
                number,
                core_dumped: status & 0x80 != 0,
            },
        }
    }

    /// Whether a tracer may have caused it, that placed or took probes this many
    /// seconds before.
    pub fn is_suspicious(self, seconds: f64) -> bool {
        matches!(self, Self::Signal { number, .. } if SUSPICIOUS.contains(&number))
            && seconds < SUSPICIOUS_SECONDS
    }

    /// What happened, for people: `exited with status 7`.
    pub fn text(self) -> String {
        match self {
            Self::Status(status) => format!("exited with status {status}"),
            Self::Signal {
                number,
                core_dumped,
            } => {
                let core = if core_dumped { ", core dumped" } else { "" };
                format!("killed by {}{core}", signal_name(number))
            }
        }
    }
}

fn signal_name(number: u8) -> String {
    let name = usize::from(number)
        .checked_sub(1)
        .and_then(|index| SIGNALS.get(index));
    name.map_or_else(|| format!("signal {number}"), ToString::to_string)
}

/// A death for which the tracer may be to blame: what a report of it to the
/// project should have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspicion {
    /// Seconds from when the last probe came or went in the process to its end.
    pub after: f64,
    /// Everything that was probed in it.
    pub placed: Vec<PlacedProbe>,
}

/// A probe that was in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedProbe {
    /// The function, or a JVM's probe.
    pub function: String,
    /// The file that defines it.
    pub module: String,
    /// Its GNU build id in hexadecimal, if it has one.
    pub build_id: Option<String>,
    /// File offset of the function's first instruction.
    pub file_offset: u64,
    /// The probed places, bytes from there.
    pub displacements: Vec<u64>,
    /// Why there, where that was chosen.
    pub placement: String,
}

impl Suspicion {
    /// What to do about it, and what was placed where, a line each, for people.
    /// Names are the target's.
    pub fn lines(&self, who: &str, outcome: Outcome, kernel: &str) -> Vec<String> {
        let mut lines = vec![
            format!(
                "{who} was {} {:.1} s after probes were placed in it or taken away: THIS MAY BE THE TRACER'S DOING.",
                outcome.text(),
                self.after
            ),
            format!(
                "Please report it to the unfreed project, with these lines (unfreed {}, {kernel}):",
                env!("CARGO_PKG_VERSION")
            ),
        ];
        let mut module = None;
        for probe in &self.placed {
            if module != Some(&probe.module) {
                module = Some(&probe.module);
                let id = probe.build_id.as_deref().unwrap_or("without a build id");
                lines.push(format!("in {} ({id}):", probe.module));
            }
            lines.push(probe.line());
        }
        lines
    }
}

impl PlacedProbe {
    fn line(&self) -> String {
        let places: Vec<_> = self
            .displacements
            .iter()
            .map(|bytes| format!("+{bytes:#x}"))
            .collect();
        let mut line = format!(
            "{} at {:#x}, probed at {}",
            self.function,
            self.file_offset,
            places.join(" ")
        );
        if !self.placement.is_empty() {
            line.push_str(&format!(": {}", self.placement));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_understood() {
        assert_eq!(Outcome::of_wait(0), Outcome::Status(0));
        assert_eq!(Outcome::of_wait(7 << 8), Outcome::Status(7));
        assert_eq!(Outcome::of_wait(255 << 8), Outcome::Status(255));
        let killed = |number, core_dumped| Outcome::Signal {
            number,
            core_dumped,
        };
        assert_eq!(Outcome::of_wait(9), killed(9, false));
        assert_eq!(Outcome::of_wait(11 | 0x80), killed(11, true));
        assert_eq!(killed(11, true).text(), "killed by SIGSEGV, core dumped");
        assert_eq!(killed(31, false).text(), "killed by SIGSYS");
        assert_eq!(killed(34, false).text(), "killed by signal 34");
        assert_eq!(Outcome::Status(7).text(), "exited with status 7");
    }

    #[test]
    fn only_some_signals_are_suspicious_and_only_soon() {
        let is = |status: u32, seconds| Outcome::of_wait(status).is_suspicious(seconds);
        for signal in [libc_number("SIGILL"), 5, 6, 7, 11, 31] {
            assert!(is(signal, 0.5) && is(signal | 0x80, 9.9), "{signal}");
            assert!(!is(signal, 10.5), "{signal}");
        }
        for other in [0, 7 << 8, 9, 15, 2, 13] {
            assert!(!is(other, 0.1), "{other}");
        }
    }

    fn libc_number(name: &str) -> u32 {
        let index = SIGNALS.iter().position(|known| *known == name);
        u32::try_from(index.unwrap() + 1).unwrap()
    }
}
