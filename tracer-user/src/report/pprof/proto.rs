//! The messages of pprof's `profile.proto` (package `perftools.profiles`,
//! <https://github.com/google/pprof/blob/main/proto/profile.proto>). Fields
//! that are neither written nor read here are left out; protobuf skips them.
//!
//! Strings are indices into [`Profile::string_table`]; ids are never 0.

use prost::Message;

/// A set of samples. On disk it is compressed by gzip.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What the values of each sample mean.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// The samples.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Mapped files.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// Addresses.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// All strings; the first is empty. Bytes, because other writers are not
    /// strict about UTF-8.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub string_table: Vec<Vec<u8>>,
    /// A regular expression: a frame whose whole function name matches is left
    /// out of views, with everything that it calls.
    #[prost(int64, tag = "7")]
    pub drop_frames: i64,
    /// When it was taken, nanoseconds since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it took, nanoseconds.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What happens between two samples.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How much of it.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Free text.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// The sample type to show first.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// What a value means and its unit.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ValueType {
    /// `inuse_space` for example.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// `bytes` for example.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// Values at one call path.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// The call path, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One value for each sample type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// More about this sample.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A key with either a string or a number.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Label {
    /// The key.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// The string, or 0.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// The number, if `str` is 0.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// Its unit, a string, or 0.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// A mapped file.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Mapping {
    /// Not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// First address after it.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// File offset of `memory_start`.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// The file's path.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Its build id in hexadecimal.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Locations of this mapping have functions.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Their functions have source files.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Their lines have numbers.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Inlined functions have lines of their own.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// One address.
#[derive(Clone, PartialEq, Message)]
pub struct Location {
    /// Not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The mapping, or 0.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// The address; for a caller one inside the call instruction.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// The functions there, the innermost inlined one first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A function at a location.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Line {
    /// The function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// The line, or 0.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Function {
    /// Not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// For people.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// As in the symbol table.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Source file.
    #[prost(int64, tag = "4")]
    pub filename: i64,
}
