//! CPython's interpreter in a file: which code runs Python frames, and where its
//! structures have what a walk needs.

use std::ops::{ControlFlow, Range};

use iced_x86::{Decoder, DecoderOptions, FlowControl, OpKind};
use object::read::elf::Sym;
use tracer_ebpf::python::{Layout, Shape};
use tracer_ebpf::rule::Rule;

use super::RuleRow;
use super::frames::Frames;
use super::image::{ENDIAN, Image};
use crate::process::bytes::Bytes;
use crate::process::symtab;
use crate::process::window::places;

/// More bytes of symbols or of their names are not read: CPython has 100 KiB.
const MAX_TABLE: u64 = 16 << 20;

/// More code of the interpreter's function is not looked at: it has some 50 KiB.
const MAX_CODE: u64 = 1 << 20;

/// So many places of a name in a table of names are looked at.
const MAX_PLACES: usize = 16;

/// More parts that the compiler put elsewhere are not looked for: it makes one.
const MAX_PARTS: usize = 16;

/// The function that runs Python frames.
const EVALUATE: &[u8] = b"_PyEval_EvalFrameDefault\0";
/// The interpreter's state.
const RUNTIME: &[u8] = b"_PyRuntime\0";
/// `PY_VERSION_HEX`, from 3.11 on.
const VERSION: &[u8] = b"Py_Version\0";
/// A function that came with 3.9.
const SINCE_3_9: &[u8] = b"PyFrame_GetBack\0";
/// A function that came with 3.8.
const SINCE_3_8: &[u8] = b"PyCode_NewWithPosOnlyArgs\0";

/// What is known of an interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interpreter {
    /// Its version, of which the first two numbers say what structures it has.
    pub version: (u8, u8),
    /// What the kernel side needs; `None` if its structures are not known.
    pub layout: Option<Layout>,
}

/// An interpreter, and where its function is as linked.
pub struct Found {
    /// What is known of it.
    pub interpreter: Interpreter,
    evaluate: Range<u64>,
}

/// The interpreter of a file, if it has one.
pub fn find(bytes: &dyn Bytes, image: &Image) -> Option<Found> {
    let (symbols, names) = image.dynamic_symbols()?;
    let symbol = |name: &[u8]| symbol(bytes, &symbols, &names, name);
    let evaluate = symbol(EVALUATE)?;
    let runtime = symbol(RUNTIME)?;
    let version = match symbol(VERSION) {
        Some(place) => {
            let version = image.at(place.start, 4)?.first_chunk()?;
            let [_, _, minor, major] = u32::from_le_bytes(*version).to_le_bytes();
            (major, minor)
        }
        // No structure of these that matters here differs between 3.9 and 3.10.
        None if symbol(SINCE_3_9).is_some() => (3, 9),
        None if symbol(SINCE_3_8).is_some() => (3, 8),
        None => return None,
    };
    let file = image.file_range(evaluate.start, evaluate.end - evaluate.start)?;
    // From an address as linked to one that counts from the file's first byte.
    let shift = file.start.0.wrapping_sub(evaluate.start);
    let layout = layout(version).map(|layout| Layout {
        runtime: runtime.start.wrapping_add(shift),
        ..layout
    });
    Some(Found {
        interpreter: Interpreter { version, layout },
        evaluate,
    })
}

/// Where the structures of a version have what is needed. The headers in which they are
/// declared, and debug information of 3.8.18, 3.9.18, 3.10.13, 3.11.7, 3.12.1 and 3.13.0,
/// say so. A state of a thread that is not where it should be is noticed: it does not say
/// whose it is.
const fn layout(version: (u8, u8)) -> Option<Layout> {
    let common = Layout {
        runtime: 0,
        tss_key: 584,
        thread_id: 176,
        newest: 24,
        shape: Shape::One as u32,
        cframe_frame: 0,
        cframe_previous: 0,
        code: 32,
        previous: 24,
        entry: 0,
        entered: 0,
        first_line: 40,
        name: 112,
        frame_bytes: 40,
        code_bytes: 80,
    };
    let qualified = Layout {
        tss_key: 592,
        thread_id: 152,
        newest: 56,
        shape: Shape::Marked as u32,
        cframe_frame: 8,
        cframe_previous: 16,
        previous: 48,
        entry: 68,
        entered: 1,
        first_line: 72,
        name: 128,
        frame_bytes: 72,
        code_bytes: 64,
        ..common
    };
    let with_shim = Layout {
        code: 0,
        previous: 8,
        entry: 70,
        entered: 3,
        first_line: 68,
        code_bytes: 72,
        ..qualified
    };
    Some(match version {
        (3, 8) => Layout {
            tss_key: 1392,
            ..common
        },
        (3, 9 | 10) => common,
        (3, 11) => qualified,
        (3, 12) => Layout {
            tss_key: 1544,
            thread_id: 136,
            shape: Shape::ShimAndCFrame as u32,
            cframe_frame: 0,
            cframe_previous: 8,
            ..with_shim
        },
        (3, 13) => Layout {
            tss_key: 2160,
            newest: 72,
            shape: Shape::Shim as u32,
            ..with_shim
        },
        _ => return None,
    })
}

/// The code or the data of a symbol.
fn symbol(
    bytes: &dyn Bytes,
    symbols: &Range<u64>,
    names: &Range<u64>,
    name: &[u8],
) -> Option<Range<u64>> {
    let size = names.end.checked_sub(names.start)?.min(MAX_TABLE);
    let at = places(bytes, (names.start, size), name).take(MAX_PLACES);
    let at: Vec<u64> = at.map(|(place, _)| place - names.start).collect();
    if at.is_empty() {
        return None;
    }
    let mut found = None;
    let end = symbols.end.min(symbols.start.saturating_add(MAX_TABLE));
    symtab::each(bytes, symbols.start..end, |symbol| {
        let is_it = at.contains(&u64::from(symbol.st_name(ENDIAN))) && symbol.st_value(ENDIAN) != 0;
        if !is_it {
            return ControlFlow::Continue(());
        }
        let start = symbol.st_value(ENDIAN);
        found = Some(start..start.saturating_add(symbol.st_size(ENDIAN)));
        ControlFlow::Break(())
    });
    found
}

/// A part of the interpreter's function, as linked.
pub struct Part {
    code: Range<u64>,
    /// Whether it is only one if no function begins where it begins.
    is_elsewhere: bool,
}

impl Found {
    /// The parts of the function: compilers put code that is seldom run elsewhere, which
    /// the function jumps into.
    pub fn parts(&self, image: &Image, frames: &Frames) -> Vec<Part> {
        if self.interpreter.layout.is_none() {
            return Vec::new();
        }
        let mut parts = vec![Part {
            code: self.evaluate.clone(),
            is_elsewhere: false,
        }];
        for target in jumps(image, &self.evaluate) {
            let Some(code) = frames.around(target) else {
                continue;
            };
            let is_known = parts.iter().any(|part| part.code.start == code.start);
            if !is_known && parts.len() < MAX_PARTS * MAX_PARTS {
                parts.push(Part {
                    code,
                    is_elsewhere: true,
                });
            }
        }
        parts
    }
}

/// Where code jumps to outside of itself.
fn jumps(image: &Image, code: &Range<u64>) -> Vec<u64> {
    let size = (code.end - code.start).min(MAX_CODE);
    let Some(bytes) = image.at(code.start, size) else {
        return Vec::new();
    };
    let instructions = Decoder::with_ip(64, bytes, code.start, DecoderOptions::NONE);
    let mut targets: Vec<u64> = instructions
        .into_iter()
        .filter(|instruction| {
            let flow = instruction.flow_control();
            matches!(
                flow,
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
            ) && instruction.op0_kind() == OpKind::NearBranch64
        })
        .map(|instruction| instruction.near_branch_target())
        .filter(|target| !code.contains(target))
        .collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// Marks the rules of the interpreter's function. `base` is what rows count from.
pub fn mark(returns: &mut Vec<RuleRow>, full: &mut Vec<RuleRow>, parts: Vec<Part>, base: u64) {
    let begins_function = |address: u64| {
        let offset = u32::try_from(address.wrapping_sub(base)).ok();
        offset.and_then(|offset| rule_at(full, offset)) == Some(Rule::ENTRY)
    };
    let parts: Vec<Range<u64>> = parts
        .into_iter()
        .filter(|part| !part.is_elsewhere || !begins_function(part.code.start))
        .map(|part| part.code)
        .take(MAX_PARTS)
        .collect();
    for code in parts {
        let offset = |address: u64| u32::try_from(address.wrapping_sub(base)).ok();
        if let (Some(start), Some(end)) = (offset(code.start), offset(code.end)) {
            mark_rows(returns, start..end);
            mark_rows(full, start..end);
        }
    }
}

/// The rule of an offset.
fn rule_at(rows: &[RuleRow], offset: u32) -> Option<Rule> {
    let after = rows.partition_point(|row| row.offset <= offset);
    Some(rows.get(after.checked_sub(1)?)?.rule)
}

/// Marks the rules from one offset to another.
fn mark_rows(rows: &mut Vec<RuleRow>, code: Range<u32>) {
    for border in [code.start, code.end] {
        let at = rows.partition_point(|row| row.offset < border);
        let is_there = rows.get(at).is_some_and(|row| row.offset == border);
        if !is_there && let Some(rule) = rule_at(rows, border) {
            let row = RuleRow {
                offset: border,
                rule,
            };
            rows.insert(at, row);
        }
    }
    let first = rows.partition_point(|row| row.offset < code.start);
    let last = rows.partition_point(|row| row.offset < code.end);
    for row in &mut rows[first..last] {
        row.rule = row.rule.in_python().unwrap_or(row.rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::ReadCache;
    use tracer_ebpf::rule::{Base, Kind, Saved};

    use crate::process::bytes::Positioned;

    fn rule(offset: i64) -> Rule {
        Rule::new(Kind::Sp, offset, Base::Cfa, Saved::Same, Saved::Same).unwrap()
    }

    #[test]
    fn rules_are_marked_from_border_to_border() {
        let row = |offset, rule| RuleRow { offset, rule };
        let mut rows = vec![row(0, Rule::NONE), row(10, rule(8)), row(30, rule(16))];
        mark_rows(&mut rows, 20..40);
        let marked = |offset| rule(offset).in_python().unwrap();
        let expected = [
            row(0, Rule::NONE),
            row(10, rule(8)),
            row(20, marked(8)),
            row(30, marked(16)),
            row(40, rule(16)),
        ];
        assert_eq!(rows, expected);
        mark_rows(&mut rows, 20..40);
        assert_eq!(rows, expected);
        // Where there is no rule there is nothing to mark.
        mark_rows(&mut rows, 0..10);
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_part_that_begins_like_a_function_is_one() {
        let row = |offset, rule| RuleRow { offset, rule };
        let rows = [
            row(0, Rule::ENTRY),
            row(10, rule(16)),
            row(20, Rule::ENTRY),
            row(30, rule(64)),
        ];
        let part = |start, end, is_elsewhere| Part {
            code: start..end,
            is_elsewhere,
        };
        let parts = vec![part(0, 20, false), part(20, 30, true), part(30, 40, true)];
        let (mut returns, mut full) = (rows.to_vec(), rows.to_vec());
        mark(&mut returns, &mut full, parts, 0);
        assert_eq!(returns, full);
        let marked: Vec<bool> = full.iter().map(|row| row.rule.is_marked()).collect();
        assert_eq!(marked, [true, true, false, true, false]);
    }

    #[test]
    fn debians_python_is_known_and_the_c_library_is_none() {
        let of = |path: &str| {
            let content = std::fs::read(path).unwrap();
            let bytes = &&content[..];
            let cache = ReadCache::new(Positioned::new(bytes));
            let image = Image::parse(&cache).unwrap();
            find(bytes, &image).map(|found| found.interpreter)
        };
        let python = of("/usr/bin/python3").unwrap();
        assert_eq!(python.version, (3, 11));
        assert_eq!(python.layout.unwrap().shape, Shape::Marked as u32);
        assert!(of("/lib/x86_64-linux-gnu/libc.so.6").is_none());
    }
}
