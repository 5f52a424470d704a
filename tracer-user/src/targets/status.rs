//! How processes end, as the kernel side tells.

use tracer_ebpf::event::Event;
use tracer_ebpf::thread::image_pid;

/// How a process ended, as its threads told.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// As `wait` will tell it.
    pub status: u32,
    /// Whether the first thread said so, whose word holds.
    by_first: bool,
}

impl Status {
    /// From the event of a thread that was one of the last, after what others
    /// of them told.
    pub fn told(event: &Event, before: Option<Self>) -> Option<Self> {
        let told = Self {
            status: u32::try_from(event.flags).ok()?,
            by_first: event.thread == image_pid(event.image),
        };
        match before {
            Some(before) if before.by_first => Some(before),
            _ => Some(told),
        }
    }

    /// From `wait` itself.
    pub fn waited(status: u32) -> Self {
        Self {
            status,
            by_first: true,
        }
    }
}
