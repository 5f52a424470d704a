//! What is known about a traced process: which code is mapped where, and the
//! files that the code came from.

pub mod address;
pub mod bytes;
pub mod clock;
pub mod code;
pub mod file;
pub mod handle;
pub mod maps;
pub mod numbered;
pub mod pagemap;
pub mod perf_map;
mod record;
pub mod room;
mod segments;
pub mod stack;
pub mod status;
pub mod symtab;
pub mod translator;
pub mod vdso;
pub mod watch;
