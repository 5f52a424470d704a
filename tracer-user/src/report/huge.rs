//! The largest report that a run can make: 16,000 call paths of 127 frames with
//! names of 16 KiB, in a process of its own, whose peak of memory is looked at.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::long_names::{MAX_WRITTEN, cut};
use super::{input, output, sample, text};
use crate::alone;
use crate::cli::args::Format;
use crate::model::name::{MAX_NAME, Name, Names};
use crate::model::{Frame, Report, Site};

const SITES: u64 = 16_000;
const FRAMES: u64 = 127;

/// Peak of memory that the process may have, bytes.
const LIMIT: u64 = 1 << 30;

/// Names that many frames share.
#[test]
fn the_largest_report_stays_under_1_gib() {
    alone::run(
        module_path!(),
        "the_largest_report_stays_under_1_gib",
        || {
            write_all(&cut_report(false), &[Format::Folded], None);
            check_peak();
        },
    );
}

/// Names that no other frame has; and the report is read again.
#[test]
fn the_largest_report_of_distinct_names_stays_under_1_gib() {
    let test = "the_largest_report_of_distinct_names_stays_under_1_gib";
    alone::run(module_path!(), test, || {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        let formats = [Format::Text, Format::Svg, Format::Pprof, Format::Json];
        write_all(&cut_report(true), &formats, Some(&file));
        check_table(&input::read_report(&file).unwrap());
        check_peak();
    });
}

fn cut_report(distinct: bool) -> Report {
    let mut report = report(distinct);
    cut(&mut report, MAX_WRITTEN);
    assert!(report.shortened.names > 0);
    println!("  {:?}", report.shortened);
    report
}

fn check_peak() {
    let peak = alone::memory("VmHWM");
    println!("  peak {} MiB", peak >> 20);
    assert!(peak < LIMIT, "{peak} bytes");
}

/// Writes a report in some formats, as JSON to a file if there is one.
fn write_all(report: &Report, formats: &[Format], json: Option<&Path>) {
    for format in formats.iter().copied() {
        let mut sink = Counted::default();
        match json.filter(|_| format == Format::Json) {
            Some(path) => {
                let mut file = io::BufWriter::new(File::create(path).unwrap());
                output::render(report, format, &mut file).unwrap();
            }
            None => output::render(report, format, &mut sink).unwrap(),
        }
        println!("  {format:?} {}", sink.0);
        assert!(format != Format::Svg || sink.0 < 200 << 20, "{}", sink.0);
        assert!(sink.0 < 1 << 30, "{} bytes would not be read again", sink.0);
    }
    check_table(report);
}

fn check_table(report: &Report) {
    let table = text::render(report, &text::Layout::new(10, Some(100), false));
    assert!(table.contains("Names: ") && table.len() < 100_000);
}

/// Counts what is written.
#[derive(Default)]
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The report: each frame has another place; names are 1,000 in all, or each
/// eighth frame has one that no other has.
fn report(distinct: bool) -> Report {
    let mut names = Names::default();
    let filling = "<long_n>".repeat(MAX_NAME / 8);
    let mut text = String::new();
    let mut longest = MAX_NAME;
    let mut name = |kind: &str, number: u64| -> Name {
        text.clear();
        write!(text, "{kind}{number}::").unwrap();
        let rest = longest - text.len();
        text.push_str(&filling[..rest / 8 * 8]);
        let kept = names.intern(&text);
        // There is ever less room for names: what none has kept any more need not
        // be made either. The report is the same, to the byte.
        if kept.len() < MAX_NAME / 32 {
            longest = MAX_NAME / 16;
        }
        kept
    };
    let mut some = |kind, count| {
        (0..count)
            .map(|number| name(kind, number))
            .collect::<Vec<_>>()
    };
    let (shared, files, modules) = (some("shared", 1_000), some("/src/", 100), some("/lib/", 10));
    let one_of = |names: &[Name], number: u64| {
        let at = usize::try_from(number).unwrap() % names.len();
        names[at].clone()
    };
    let mut frame = |site: u64, depth: u64| {
        let number = site * FRAMES + depth;
        let function = match distinct && number.is_multiple_of(8) {
            true => name("distinct", number),
            false => one_of(&shared, number),
        };
        Frame {
            function: Some(function),
            file: Some(one_of(&files, number)),
            line: Some(7),
            module: Some(one_of(&modules, number)),
            module_offset: Some(number),
            address: 0x7f00_0000_0000 + number,
            ..sample::library("", 0)
        }
    };
    let mut site = |id: u64| {
        let frames: Vec<Frame> = (0..FRAMES).map(|depth| frame(id, depth)).collect();
        Site {
            frames,
            ..sample::site(id, (10_007, 1), (0, 0), vec![])
        }
    };
    let mut report = sample::report();
    report.sites = (1..=SITES).map(&mut site).collect();
    report.totals.live_bytes = SITES * 10_007;
    report.totals.live_count = SITES;
    report.shortened.names = names.cut();
    report
}
