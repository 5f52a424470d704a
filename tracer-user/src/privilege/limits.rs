//! Limits of our own process: raised for the tracer, and given back to the
//! program that it starts.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits that the tracer was started with.
static FOUND: OnceLock<Limits> = OnceLock::new();

/// The limits that the tracer changes for itself.
#[derive(Debug, Clone)]
pub struct Limits {
    files: Rlimit,
    locked: Rlimit,
}

impl Limits {
    /// Those that the tracer was started with.
    pub fn found() -> &'static Self {
        FOUND.get_or_init(|| Self {
            files: getrlimit(Resource::Nofile),
            locked: getrlimit(Resource::Memlock),
        })
    }

    /// Sets them, for this process. Makes system calls and nothing else, for
    /// a child that has not called `exec` yet.
    ///
    /// # Errors
    /// Fails as `setrlimit` does. To lower a limit is always allowed.
    pub fn set(&self) -> io::Result<()> {
        setrlimit(Resource::Nofile, self.files.clone())?;
        setrlimit(Resource::Memlock, self.locked.clone())?;
        Ok(())
    }
}

/// Raises what tracing needs. A refusal changes nothing, and shows when what
/// is limited is used up.
pub fn raise() {
    let found = Limits::found();
    // Before Linux 5.11 the kernel counts BPF memory against this limit.
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, none).is_err() {
        let _refused = setrlimit(Resource::Memlock, highest(&found.locked));
    }
    // Files with code are kept open, so that their processes may end.
    let _refused = setrlimit(Resource::Nofile, highest(&found.files));
}

/// What may be had without a privilege.
fn highest(found: &Rlimit) -> Rlimit {
    Rlimit {
        current: found.maximum,
        maximum: found.maximum,
    }
}
