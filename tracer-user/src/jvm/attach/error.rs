//! Why a JVM gives no answer.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a JVM gives no answer, and what mends it.
#[derive(Debug)]
pub enum AttachError {
    /// The process has ended, or ends.
    Ended,
    /// No `libjvm.so` is mapped.
    NotJava,
    /// The JVM's `/tmp` cannot be reached.
    NoFolder(io::Error),
    /// `/proc/PID/status` cannot be read, or lacks what is needed.
    Status(io::Error),
    /// SIGQUIT is not caught: it would end the process.
    QuitKills,
    /// An option of the JVM forbids it.
    Disabled,
    /// Something that is not the JVM's is in a file's place.
    Foreign {
        /// The path as the JVM sees it.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The file that asks the JVM to listen can be made nowhere.
    NoTrigger(io::Error),
    /// The signal may not be sent.
    Signal(io::Error),
    /// We may not take the JVM's user for the connection.
    Credentials(io::Error),
    /// There is no socket after SIGQUIT.
    NoSocket {
        /// How long was waited.
        after: Duration,
        /// Whether the process is stopped by a signal or a debugger.
        stopped: bool,
    },
    /// The connection fails.
    Connect(io::Error),
    /// The connection was closed without an answer.
    Refused,
    /// The answer is not complete within the time.
    TimedOut(Duration),
    /// The answer is longer than is read.
    TooLong,
    /// The answer has no status line.
    Malformed,
    /// It cannot write a perf map.
    NoPerfMap,
    /// There is no perf map, or it cannot be read.
    PerfMap(io::Error),
    /// The JVM could not run the command.
    Command {
        /// The status, not 0.
        status: i32,
        /// The beginning of what it says.
        text: String,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => write!(f, "the JVM ended"),
            Self::NotJava => write!(f, "this is no HotSpot JVM: no libjvm.so is mapped"),
            Self::NoFolder(error) => {
                write!(
                    f,
                    "the JVM's /tmp cannot be opened ({error}); run it with sudo, and see that /tmp is in the JVM's container"
                )
            }
            Self::Status(error) => write!(f, "cannot read the JVM's status in /proc: {error}"),
            Self::QuitKills => {
                write!(
                    f,
                    "the JVM does not catch SIGQUIT, which would kill it: it is still starting, or was started with -Xrs; try again later, or start it without -Xrs"
                )
            }
            Self::Disabled => {
                write!(
                    f,
                    "the JVM was started with -XX:+DisableAttachMechanism; start it without"
                )
            }
            Self::Foreign { path, what } => {
                write!(
                    f,
                    "{} is {what}: not the JVM's, and not followed; remove it",
                    path.display()
                )
            }
            Self::NoTrigger(error) => {
                write!(
                    f,
                    "cannot make .attach_pid in the JVM's working folder or its /tmp ({error}); one of them must be writable"
                )
            }
            Self::Signal(error) => {
                write!(
                    f,
                    "cannot send SIGQUIT to the JVM ({error}); run it with sudo"
                )
            }
            Self::Credentials(error) => {
                write!(
                    f,
                    "cannot act as the JVM's user ({error}); run it with sudo, or with CAP_SETUID and CAP_SETGID"
                )
            }
            Self::NoSocket { stopped: true, .. } => {
                write!(
                    f,
                    "the JVM is stopped and cannot answer; let it go on with `kill -CONT`"
                )
            }
            Self::NoSocket { after, .. } => {
                write!(
                    f,
                    "the JVM did not begin to listen within {} s: it hangs or is ending, or it was started with -XX:+DisableAttachMechanism (then there is a thread dump in its output)",
                    after.as_secs()
                )
            }
            Self::Connect(error) => write!(f, "the connection to the JVM failed: {error}"),
            Self::Refused => {
                write!(
                    f,
                    "the JVM closed the connection without an answer: it trusts only its own user and group"
                )
            }
            Self::TimedOut(limit) => {
                write!(f, "the JVM did not answer within {} s", limit.as_secs())
            }
            Self::TooLong => write!(f, "the JVM's answer is longer than is read"),
            Self::NoPerfMap => write!(
                f,
                "this JVM cannot write a perf map: Compiler.perfmap came with JDK 17"
            ),
            Self::PerfMap(error) => write!(f, "cannot read the JVM's perf map: {error}"),
            Self::Malformed => write!(f, "the JVM's answer is of an unknown form"),
            Self::Command { status, text } => {
                write!(f, "the JVM refuses the command (status {status}): {text}")
            }
        }
    }
}

impl std::error::Error for AttachError {}
