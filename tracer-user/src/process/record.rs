//! Side-band records of perf_event_open(2), from bytes to events.
//!
//! The layouts are those of `enum perf_event_type` in the kernel's
//! `include/uapi/linux/perf_event.h`, with `sample_id_all` and
//! `PERF_SAMPLE_TIME` alone: every record ends in its time.

use super::address::{CodeAddress, FileOffset};
use super::maps::{Device, FileId, MappedRange, MappingName};
use super::watch::CodeEvent;

const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const FORK: u32 = 7;
const MMAP2: u32 = 10;

/// The flag in a COMM record's header that `exec` set the name.
const MISC_COMM_EXEC: u16 = 1 << 13;

/// `PROT_EXEC`.
const PROT_EXEC: u32 = 4;

/// Parses one record: its type and flags from the header, and what follows
/// the header. None if it tells nothing of interest or is too short.
pub(super) fn parse(kind: u32, misc: u16, body: &[u8]) -> Option<CodeEvent> {
    let (fields, time) = body.split_last_chunk::<8>()?;
    let time_ns = u64::from_ne_bytes(*time);
    let mut fields = Fields(fields);
    match kind {
        MMAP2 => parse_mapping(&mut fields, time_ns),
        COMM if misc & MISC_COMM_EXEC != 0 => {
            let pid = fields.u32()?;
            fields.u32()?;
            let name = String::from_utf8_lossy(fields.text()).into_owned();
            Some(CodeEvent::Exec { pid, time_ns, name })
        }
        FORK => {
            let (pid, parent) = (fields.u32()?, fields.u32()?);
            (pid != parent).then_some(CodeEvent::Fork {
                pid,
                parent,
                time_ns,
            })
        }
        EXIT => {
            let (pid, _) = (fields.u32()?, fields.u32()?);
            Some(CodeEvent::Exit {
                pid,
                tid: fields.u32()?,
                time_ns,
            })
        }
        LOST => {
            fields.u64()?;
            Some(CodeEvent::Lost {
                count: fields.u64()?,
                time_ns,
            })
        }
        _ => None,
    }
}

fn parse_mapping(fields: &mut Fields<'_>, time_ns: u64) -> Option<CodeEvent> {
    let (pid, _tid) = (fields.u32()?, fields.u32()?);
    let (start, length, file_offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let device = Device {
        major: fields.u32()?,
        minor: fields.u32()?,
    };
    let (inode, _generation) = (fields.u64()?, fields.u64()?);
    let (protection, _flags) = (fields.u32()?, fields.u32()?);
    let end = start.checked_add(length).filter(|&end| end > start)?;
    if protection & PROT_EXEC == 0 {
        return None;
    }
    let range = MappedRange {
        start: CodeAddress(start),
        end: CodeAddress(end),
        file_offset: FileOffset(file_offset),
        file: FileId::new(device, inode),
        name: MappingName::from_kernel(fields.text(), inode),
    };
    Some(CodeEvent::Map {
        pid,
        time_ns,
        range,
    })
}

/// The rest of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*value))
    }

    fn u64(&mut self) -> Option<u64> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*value))
    }

    /// A text that is padded with zeros.
    fn text(&self) -> &'a [u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn mapping(protection: u32, length: u64, name: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for word in [77_u32, 78] {
            body.extend(word.to_ne_bytes());
        }
        for long in [0x7000_u64, length, 0x3000] {
            body.extend(long.to_ne_bytes());
        }
        for word in [8_u32, 1] {
            body.extend(word.to_ne_bytes());
        }
        for long in [1234_u64, 5] {
            body.extend(long.to_ne_bytes());
        }
        for word in [protection, 2] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(name);
        body.resize(body.len().next_multiple_of(8), 0);
        body.extend(99_u64.to_ne_bytes());
        body
    }

    #[test]
    fn a_mapping_is_parsed() {
        let body = mapping(5, 0x2000, b"/lib/x y.so\0");
        let Some(CodeEvent::Map {
            pid: 77,
            time_ns: 99,
            range,
        }) = parse(MMAP2, 2, &body)
        else {
            panic!("not a mapping");
        };
        assert_eq!(
            (range.start.0, range.end.0, range.file_offset.0),
            (0x7000, 0x9000, 0x3000)
        );
        assert_eq!(range.file.device, Device { major: 8, minor: 1 });
        assert_eq!(range.file.inode, 1234);
        assert_eq!(range.name.path(), Some(Path::new("/lib/x y.so")));
    }

    #[test]
    fn mappings_without_code_or_extent_tell_nothing() {
        assert_eq!(parse(MMAP2, 0, &mapping(3, 0x2000, b"/x\0")), None);
        assert_eq!(parse(MMAP2, 0, &mapping(5, 0, b"/x\0")), None);
        assert_eq!(parse(MMAP2, 0, &mapping(5, u64::MAX, b"/x\0")), None);
    }

    #[test]
    fn every_cut_record_is_safe_to_parse() {
        let body = mapping(5, 0x2000, b"/lib/x.so\0");
        for kind in 0..20 {
            for length in 0..body.len() {
                parse(kind, MISC_COMM_EXEC, &body[..length]);
            }
        }
    }

    fn words(words: &[u32], time: u64) -> Vec<u8> {
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        body.extend(time.to_ne_bytes());
        body
    }

    #[test]
    fn tasks_are_parsed() {
        let fork = parse(FORK, 0, &words(&[5, 4, 5, 4, 0, 0], 9));
        assert_eq!(
            fork,
            Some(CodeEvent::Fork {
                pid: 5,
                parent: 4,
                time_ns: 9
            })
        );
        assert_eq!(
            parse(FORK, 0, &words(&[4, 4, 5, 4, 0, 0], 9)),
            None,
            "a thread"
        );
        let exit = parse(EXIT, 0, &words(&[5, 4, 6, 4, 0, 0], 9));
        assert_eq!(
            exit,
            Some(CodeEvent::Exit {
                pid: 5,
                tid: 6,
                time_ns: 9
            })
        );
        let lost = parse(LOST, 0, &words(&[1, 0, 300, 0], 9));
        assert_eq!(
            lost,
            Some(CodeEvent::Lost {
                count: 300,
                time_ns: 9
            })
        );
        let name = u32::from_ne_bytes(*b"true");
        let exec = parse(COMM, MISC_COMM_EXEC, &words(&[5, 5, name, 0], 9));
        assert_eq!(
            exec,
            Some(CodeEvent::Exec {
                pid: 5,
                time_ns: 9,
                name: "true".into()
            })
        );
        assert_eq!(
            parse(COMM, 0, &words(&[5, 5, name, 0], 9)),
            None,
            "a thread's own name"
        );
    }
}
