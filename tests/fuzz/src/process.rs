//! Mappings, files, and the records that tell of them.

#[path = "../../../tracer-user/src/process/address.rs"]
pub mod address;
#[path = "../../../tracer-user/src/process/arenas.rs"]
pub mod arenas;
#[path = "../../../tracer-user/src/process/books/mod.rs"]
pub mod books;
#[path = "../../../tracer-user/src/process/bytes.rs"]
pub mod bytes;
#[path = "../../../tracer-user/src/process/clock.rs"]
pub mod clock;
#[path = "../../../tracer-user/src/process/code.rs"]
pub mod code;
#[path = "../../../tracer-user/src/process/copied.rs"]
pub mod copied;
#[path = "../../../tracer-user/src/process/debug_file.rs"]
pub mod debug_file;
#[path = "../../../tracer-user/src/process/file.rs"]
pub mod file;
#[path = "../../../tracer-user/src/process/free_lists.rs"]
pub mod free_lists;
#[path = "../../../tracer-user/src/process/handle.rs"]
pub mod handle;
#[path = "../../../tracer-user/src/process/loaded.rs"]
pub mod loaded;
#[path = "../../../tracer-user/src/process/mappings.rs"]
pub mod mappings;
#[path = "../../../tracer-user/src/process/maps.rs"]
pub mod maps;
#[path = "../../../tracer-user/src/process/owner.rs"]
pub mod owner;
#[path = "../../../tracer-user/src/process/pagemap.rs"]
pub mod pagemap;
#[path = "../../../tracer-user/src/process/pclntab.rs"]
pub mod pclntab;
#[path = "../../../tracer-user/src/process/perf_map.rs"]
pub mod perf_map;
#[path = "../../../tracer-user/src/process/record.rs"]
mod record;
#[path = "../../../tracer-user/src/process/resident.rs"]
pub mod resident;
#[path = "../../../tracer-user/src/process/room.rs"]
pub mod room;
#[path = "../../../tracer-user/src/process/segments.rs"]
pub mod segments;
#[path = "../../../tracer-user/src/process/symtab.rs"]
pub mod symtab;
#[path = "../../../tracer-user/src/process/watch.rs"]
pub mod watch;
#[path = "../../../tracer-user/src/process/window.rs"]
pub mod window;

/// Parses a record of any content.
pub fn record(kind: u32, misc: u16, body: &[u8]) -> Option<watch::CodeEvent> {
    record::parse(kind, misc, body)
}
