//! Rows against gimli's own evaluation, and pruned rows against whole ones at
//! every call that a disassembler finds.

use std::path::Path;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EhFrameHdr, LittleEndian, RegisterRule,
    UnwindContext, UnwindSection,
};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use object::{Object, ObjectSection};
use rustix::fs::{CWD, Mode, OFlags, openat};
use tracer_ebpf::rule::{Base, Kind, Rule, Saved};

use super::{full, libc_path, returning};
use crate::process::file::RegularFile;
use crate::unwind::Table;

/// Next number of a fixed sequence (Knuth's MMIX generator).
fn next(random: &mut u64) -> u64 {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

/// A file, and gimli's view of it.
struct Oracle {
    image: Vec<u8>,
    text: std::ops::Range<u64>,
}

impl Oracle {
    fn read(path: &str) -> Self {
        let image = std::fs::read(path).unwrap();
        let file = object::File::parse(&*image).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let text = text.address()..text.address() + text.size();
        Oracle { image, text }
    }

    fn section<'a>(&self, file: &object::File<'a>, name: &str) -> (u64, &'a [u8]) {
        let section = file.section_by_name(name).unwrap();
        (section.address(), section.data().unwrap())
    }

    /// Calls `check` with a look-up of rules by gimli.
    fn with<T>(&self, check: impl FnOnce(&mut dyn FnMut(u64) -> Option<Rule>) -> T) -> T {
        let file = object::File::parse(&*self.image).unwrap();
        let (address, data) = self.section(&file, ".eh_frame");
        let (header_address, header) = self.section(&file, ".eh_frame_hdr");
        let bases = BaseAddresses::default()
            .set_eh_frame(address)
            .set_eh_frame_hdr(header_address);
        let frames = EhFrame::new(data, LittleEndian);
        let header = EhFrameHdr::new(header, LittleEndian)
            .parse(&bases, 8)
            .unwrap();
        let table = header.table().unwrap();
        let mut context = UnwindContext::new();
        check(&mut |address| {
            let row = table.unwind_info_for_address(
                &frames,
                &bases,
                &mut context,
                address,
                EhFrame::cie_from_offset,
            );
            row.ok().map(expected)
        })
    }

    /// Where functions begin and end, by their entries.
    fn functions(&self) -> Vec<std::ops::Range<u64>> {
        let file = object::File::parse(&*self.image).unwrap();
        let (address, data) = self.section(&file, ".eh_frame");
        let bases = BaseAddresses::default().set_eh_frame(address);
        let frames = EhFrame::new(data, LittleEndian);
        let mut entries = frames.entries(&bases);
        let mut functions = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            if let CieOrFde::Fde(partial) = entry {
                let entry = partial.parse(EhFrame::cie_from_offset).unwrap();
                functions.push(entry.initial_address()..entry.end_address());
            }
        }
        functions
    }
}

/// The rule that a row of gimli's means; `UNSUPPORTED` for all that plain
/// functions do not have.
fn expected(row: &gimli::UnwindTableRow<usize>) -> Rule {
    let register = |number| row.register(gimli::Register(number));
    match register(16) {
        Some(RegisterRule::Undefined) => return Rule::END,
        Some(RegisterRule::Offset(-8)) => {}
        _ => return Rule::UNSUPPORTED,
    }
    let CfaRule::RegisterAndOffset {
        register: of,
        offset,
    } = row.cfa()
    else {
        return Rule::UNSUPPORTED;
    };
    let kind = match of.0 {
        3 => Kind::Bx,
        6 => Kind::Bp,
        7 => Kind::Sp,
        _ => return Rule::UNSUPPORTED,
    };
    let saved = |number| match register(number) {
        None | Some(RegisterRule::SameValue) => Saved::Same,
        Some(RegisterRule::Offset(offset)) => Saved::At(offset.try_into().unwrap()),
        _ => Saved::Lost,
    };
    Rule::new(kind, *offset, Base::Cfa, saved(6), saved(3)).unwrap_or(Rule::UNSUPPORTED)
}

fn is_plain(rule: Rule) -> bool {
    [Kind::End, Kind::Sp, Kind::Bp, Kind::Bx]
        .map(|kind| kind as u8)
        .contains(&rule.kind())
}

fn own_path() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().into()
}

#[test]
fn rows_agree_with_gimli_at_random_addresses() {
    for path in [libc_path(), own_path()] {
        let oracle = Oracle::read(&path);
        let table = Table::parse(&oracle.image).unwrap().unwrap();
        let mut random = 1;
        let mut plain = 0;
        oracle.with(|look_up| {
            for _ in 0..20_000 {
                let size = oracle.text.end - oracle.text.start;
                let address = oracle.text.start + next(&mut random) % size;
                let (ours, theirs) = (full(&table, address), look_up(address));
                match theirs {
                    // glibc's `__start_context`: see landmarks.rs.
                    _ if ours == Rule::END => {}
                    // What nothing describes is told by what it does, or not at all.
                    None => {}
                    Some(Rule::UNSUPPORTED) => assert!(!is_plain(ours), "{path} {address:x}"),
                    Some(theirs) => {
                        assert_eq!(ours, theirs, "{path} {address:x}");
                        plain += 1;
                    }
                }
            }
        });
        assert!(plain > 15_000, "{path}: {plain}");
    }
}

#[test]
fn pruned_rows_agree_with_gimli_after_every_call() {
    let oracle = Oracle::read(&libc_path());
    let table = Table::parse(&oracle.image).unwrap().unwrap();
    let segment = table.segments[0];
    let mut calls = 0;
    oracle.with(|look_up| {
        for function in oracle.functions() {
            let start = usize::try_from(function.start - segment.address.0 + segment.offset.0);
            let start = start.unwrap();
            let length = usize::try_from(function.end - function.start).unwrap();
            let code = &oracle.image[start..start + length];
            let decoder = Decoder::with_ip(64, code, function.start, DecoderOptions::NONE);
            for instruction in decoder {
                if instruction.mnemonic() != Mnemonic::Call {
                    continue;
                }
                let address = instruction.next_ip();
                let ours = returning(&table, address);
                assert_eq!(ours, full(&table, address - 1), "{address:x}");
                if ours != Rule::END {
                    assert_eq!(Some(ours), look_up(address - 1), "{address:x}");
                }
                calls += 1;
            }
        }
    });
    assert!(calls > 10_000, "{calls}");
    assert!(table.returns.len() * 8 < table.full.len());
}

/// Read through a descriptor, piece by piece, a file says the same as in
/// memory; without its sections it does, too.
#[test]
fn however_a_file_is_read_it_says_the_same() {
    let path = libc_path();
    let mut image = std::fs::read(&path).unwrap();
    let in_memory = Table::parse(&image).unwrap().unwrap();
    let located = openat(CWD, &path, OFlags::PATH, Mode::empty()).unwrap();
    let file = RegularFile::open(&located).unwrap();
    let read = Table::read(&file, Path::new(&path)).unwrap().unwrap();
    assert_eq!(read.full, in_memory.full);
    assert_eq!(read.returns, in_memory.returns);
    assert_eq!(read.segments, in_memory.segments);
    // e_shnum.
    image[60..62].fill(0);
    let stripped = Table::parse(&image).unwrap().unwrap();
    assert_eq!(stripped.full, in_memory.full);
}
