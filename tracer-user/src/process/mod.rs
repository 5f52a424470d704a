//! What is known about a traced process: which code is mapped where, and the
//! files that the code came from.

pub mod account;
pub mod address;
pub mod arenas;
pub mod books;
pub mod bytes;
pub mod cgroup;
pub mod clock;
pub mod code;
pub mod copied;
pub mod debug_file;
pub mod file;
pub mod free_lists;
pub mod handle;
pub mod loaded;
pub mod machine;
pub mod mappings;
pub mod maps;
pub mod numbered;
pub mod owner;
pub mod pagemap;
pub mod pclntab;
pub mod perf_map;
pub mod processor_time;
mod record;
pub mod regions;
pub mod resident;
pub mod room;
mod segments;
pub mod stack;
pub mod status;
pub mod symtab;
pub mod translator;
pub mod vdso;
pub mod vitals;
pub mod watch;
pub mod window;
