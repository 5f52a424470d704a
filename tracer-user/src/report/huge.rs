//! The largest report that a run can make: 16,000 call paths of 127 frames with
//! names of 16 KiB, in a process of its own, whose peak of memory is looked at.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use super::diff::{self, Snapshot};
use super::long_names::{MAX_WRITTEN, cut};
use super::model::{Frame, Report, Site};
use super::name::{MAX_NAME, Name, Names};
use super::{input, output, sample, text};
use crate::cli::args::Format;

const SITES: u64 = 16_000;
const FRAMES: u64 = 127;

/// Peak of memory that the process may have, KiB.
const LIMIT: u64 = 1 << 20;

/// Says what the other process is to do, and with which file.
const PART: &str = "UNFREED_HUGE_PART";
const FILE: &str = "UNFREED_HUGE_FILE";

/// Runs a part in a process of its own. Returns its peak of memory, KiB.
fn peak_of(part: &str, file: &Path) -> u64 {
    let output = Command::new("/proc/self/exe")
        .args(["--exact", "report::huge::the_other_process", "--nocapture"])
        .env(PART, part)
        .env(FILE, file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{part}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in said.lines().filter(|line| line.starts_with("  ")) {
        eprintln!("{part}:{line}");
    }
    let peak = said.lines().find_map(|line| line.strip_prefix("  peak "));
    peak.and_then(|kib| kib.parse().ok())
        .unwrap_or_else(|| panic!("{part}: {said}"))
}

#[test]
fn the_largest_report_stays_under_1_gib() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    for part in ["shared", "distinct", "read", "diff"] {
        let peak = peak_of(part, &file);
        assert!(peak < LIMIT, "{part}: {peak} KiB");
    }
}

/// What [`peak_of`] runs; nothing by itself.
#[test]
fn the_other_process() {
    let (Ok(part), Ok(file)) = (std::env::var(PART), std::env::var(FILE)) else {
        return;
    };
    let file = Path::new(&file);
    match part.as_str() {
        "read" => check_table(&input::read_report(file).unwrap()),
        "diff" => {
            let side = || Snapshot::read(file).unwrap();
            let diff = diff::compare(side(), side()).unwrap();
            let mut sink = Counted::default();
            diff::write(&diff, Format::Svg, &mut sink).unwrap();
            println!("  Svg {}", sink.0);
        }
        names => {
            let mut report = report(names == "distinct");
            cut(&mut report, MAX_WRITTEN);
            assert!(report.shortened.names > 0);
            println!("  {:?}", report.shortened);
            // Each format once: this is long enough.
            match names {
                "shared" => write_all(&report, &[Format::Folded, Format::Json], None),
                _ => {
                    let formats = [Format::Text, Format::Svg, Format::Pprof, Format::Json];
                    write_all(&report, &formats, Some(file));
                }
            }
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("  peak {}", peak.unwrap().trim().trim_end_matches(" kB"));
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
    let mut text = String::new();
    let mut name = |kind: &str, number: u64| -> Name {
        text.clear();
        write!(text, "{kind}{number}::").unwrap();
        let rest = MAX_NAME - text.len();
        text.extend(std::iter::repeat_n("<long_n>", rest / 8));
        names.intern(&text)
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
