//! The difference as a flamegraph, as folded stacks and as JSON.

use std::io::{self, Write};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use super::table::amount;
use super::{Diff, DiffFinding, Snapshot};
use crate::cli::args::Format;
use crate::model::Frame;
use crate::report::flamegraph::{self, Direction, Legend, Node, Scene, Tree};
use crate::report::text::{Layout, ROWS};
use crate::report::{folded, names, units};

/// The schema of the difference as JSON.
pub const SCHEMA: &str = "unfreed-diff/1";

/// Why there is no pprof profile of a difference.
const NO_PPROF: &str = "a difference is not written as pprof: \
    `go tool pprof -diff_base BEFORE AFTER` shows one, or choose .svg, .folded or .json";

/// Why there is no difference of growths.
const NO_JAVA: &str = "growing Java classes are of one run: a difference has none; \
    choose .svg, .folded or .json";

/// Why there is no difference of holders.
const NO_HOLDERS: &str = "holders are of one run: a difference has none; \
    choose .svg, .folded or .json";

/// Proves that a difference can be written in a format.
///
/// # Errors
/// Fails for pprof, growing Java classes and holders.
pub fn check_format(format: Format) -> Result<()> {
    ensure!(format != Format::Pprof, NO_PPROF);
    ensure!(
        !matches!(format, Format::JavaSvg | Format::JavaFolded),
        NO_JAVA
    );
    ensure!(format != Format::HoldersSvg, NO_HOLDERS);
    Ok(())
}

/// Writes the difference in a format.
///
/// # Errors
/// Those of the writer; and a pprof profile of a difference is not written.
pub fn write(diff: &Diff, format: Format, writer: &mut dyn Write) -> Result<()> {
    match format {
        Format::Svg => svg(diff, writer),
        Format::Folded => Ok(folded(diff, writer)?),
        Format::Json => Ok(json(diff, writer)?),
        Format::Text => {
            let text = super::render(diff, &Layout::new(ROWS, None, false).whole());
            Ok(writer.write_all(text.as_bytes())?)
        }
        Format::Pprof => bail!(NO_PPROF),
        Format::JavaSvg | Format::JavaFolded => bail!(NO_JAVA),
        Format::HoldersSvg => bail!(NO_HOLDERS),
    }
}

/// One line a path, root first, with the bytes before and after: the input of
/// `flamegraph.pl` and `inferno-flamegraph` for differences.
fn folded(diff: &Diff, writer: &mut dyn Write) -> io::Result<()> {
    for change in &diff.changes {
        let process = process(change.process.as_deref());
        folded::write_path(writer, process.as_slice(), &change.frames)?;
        writeln!(writer, " {} {}", change.before.bytes, change.after.bytes)?;
    }
    Ok(())
}

fn process(name: Option<&str>) -> Option<String> {
    name.map(|name| names::clean(name).into_owned())
}

/// Draws every path as wide as the larger of its two amounts, so that what is
/// gone can be seen too; growth is red, shrinking blue.
fn svg(diff: &Diff, writer: &mut dyn Write) -> Result<()> {
    let mut tree = Tree::default();
    for change in &diff.changes {
        let process = process(change.process.as_deref());
        tree.add(
            process.as_slice(),
            &change.frames,
            change.before,
            change.after,
        );
    }
    let change = |node: &Node| node.before.bytes.abs_diff(node.after.bytes);
    let largest = tree.nodes().iter().map(change).max().unwrap_or(0);
    let colour = |node: &Node| flamegraph::change(node, largest);
    let tooltip = |node: &Node| tooltip(node, diff);
    let svg = flamegraph::draw(&Scene {
        title: format!(
            "Growth from {} to {}",
            names::clean(&diff.before.name),
            names::clean(&diff.after.name)
        ),
        subtitle: subtitle(diff),
        empty: "Nothing is live in either.".into(),
        legend: legend(),
        tree: &tree,
        tooltip: &tooltip,
        colour: &colour,
        direction: Direction::Straight,
    })?;
    Ok(writer.write_all(svg.as_bytes())?)
}

fn tooltip(node: &Node, diff: &Diff) -> String {
    let (before, after) = (node.before, node.after);
    let mut text = format!(
        "{} {}: {} before, {} after",
        units::grouped_change(before.bytes, after.bytes),
        diff.after.unit,
        units::grouped(before.bytes),
        units::grouped(after.bytes),
    );
    if diff.counted() {
        let blocks = units::grouped_change(before.count, after.count);
        text.push_str(&format!("; {blocks} blocks"));
    }
    if let Some(place) = node.place() {
        text.push_str(&format!(", {place}"));
    }
    text
}

fn subtitle(diff: &Diff) -> String {
    let side = |side: &Snapshot| amount(&side.unit, side.total().bytes);
    let lost = !diff.before.notes.is_empty() || !diff.after.notes.is_empty();
    format!(
        "{} before, {} after; width: the larger of both{}",
        side(&diff.before),
        side(&diff.after),
        if lost {
            "; estimates: events were lost"
        } else {
            ""
        }
    )
}

fn legend() -> Vec<Legend> {
    [
        (flamegraph::GROWN, "grown"),
        (flamegraph::SAME, "same"),
        (flamegraph::SHRUNK, "shrunk"),
    ]
    .map(|(colour, text)| Legend {
        colour,
        text: text.into(),
    })
    .into()
}

/// The difference as JSON: both sides, then every path, most grown first.
fn json(diff: &Diff, writer: &mut dyn Write) -> io::Result<()> {
    let paths = diff.changes.iter().map(|change| JsonPath {
        process: change.process.as_deref(),
        growth: change.growth(),
        before_bytes: change.before.bytes,
        after_bytes: change.after.bytes,
        before_count: diff.before.counted.then_some(change.before.count),
        after_count: diff.after.counted.then_some(change.after.count),
        frames: &change.frames,
    });
    let document = Json {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        unit: &diff.after.unit,
        before: JsonSide::new(&diff.before),
        after: JsonSide::new(&diff.after),
        findings: &diff.findings,
        paths: paths.collect(),
    };
    serde_json::to_writer(&mut *writer, &document)?;
    writeln!(writer)
}

#[derive(Serialize)]
struct Json<'a> {
    schema: &'static str,
    version: &'static str,
    /// Unit of `growth`, `before_bytes` and `after_bytes`: `bytes`, unless
    /// profiles of something else were compared.
    unit: &'a str,
    before: JsonSide<'a>,
    after: JsonSide<'a>,
    /// What is new, got faster or slower, and stopped; most important first.
    findings: &'a [DiffFinding],
    paths: Vec<JsonPath<'a>>,
}

#[derive(Serialize)]
struct JsonSide<'a> {
    name: &'a str,
    /// How long was traced, seconds.
    duration: Option<f64>,
    live_bytes: u64,
    /// Blocks; `null` if the profile does not count them.
    live_count: Option<u64>,
    /// Losses that make the numbers estimates.
    notes: &'a [String],
}

impl<'a> JsonSide<'a> {
    fn new(side: &'a Snapshot) -> Self {
        let total = side.total();
        Self {
            name: &side.name,
            duration: side.duration,
            live_bytes: total.bytes,
            live_count: side.counted.then_some(total.count),
            notes: &side.notes,
        }
    }
}

#[derive(Serialize)]
struct JsonPath<'a> {
    /// The process's name, where processes of several names were traced.
    process: Option<&'a str>,
    /// `after_bytes` less `before_bytes`.
    growth: i128,
    before_bytes: u64,
    after_bytes: u64,
    /// Blocks; `null` if the profile does not count them.
    before_count: Option<u64>,
    after_count: Option<u64>,
    /// Root first, as in a report.
    frames: &'a [Frame],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grouping::Rules;
    use crate::report::diff::compare;
    use crate::report::sample;

    fn diff() -> Diff {
        let before = sample::report();
        let mut after = sample::report();
        after.sites[0].live_bytes += 1_000;
        after.sites[1].live_bytes = 0;
        after.sites[1].live_count = 0;
        compare(
            Snapshot::of_report("a", before),
            Snapshot::of_report("b", after),
            &Rules::new(&[]).unwrap(),
        )
        .unwrap()
    }

    fn written(format: Format) -> String {
        let mut text = Vec::new();
        write(&diff(), format, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn folded_lines_have_both_values() {
        let expected = "\
__libc_start_main;main;open_session(int);Session::Session();malloc 10097063 10098063
__libc_start_main;main;load_config();malloc 65537 65537
__libc_start_main;main;Cache::insert(Key const&);malloc 1045504 0
";
        assert_eq!(written(Format::Folded), expected);
    }

    #[test]
    fn growth_is_red_shrinking_blue_and_the_gone_is_drawn() {
        let svg = written(Format::Svg);
        let fill = |title: &str| {
            let from = svg.find(&format!("<title>{title}")).expect(title);
            let rgb = svg[from..]
                .split("rgb(")
                .nth(1)
                .unwrap()
                .split(')')
                .next()
                .unwrap();
            let channels: Vec<u8> = rgb.split(',').map(|value| value.parse().unwrap()).collect();
            (channels[0], channels[2])
        };
        let grown =
            fill("open_session(int) (+1,000 bytes: 10,097,063 before, 10,098,063 after; 0 blocks");
        let gone = fill(
            "Cache::insert(Key const&amp;) (-1,045,504 bytes: 1,045,504 before, 0 after; -1,024 blocks",
        );
        let main = fill("main (-1,044,504 bytes");
        let same = fill("load_config() (0 bytes: 65,537 before, 65,537 after");
        assert!(grown.0 > grown.1 && gone.0 < gone.1 && main.0 < main.1 && same.0 == same.1);
    }

    #[test]
    fn json_has_every_path() {
        let value: serde_json::Value = serde_json::from_str(&written(Format::Json)).unwrap();
        assert_eq!(value["schema"], SCHEMA);
        assert_eq!(value["before"]["live_bytes"], 11_208_104);
        assert_eq!(value["paths"][2]["growth"], -1_045_504);
        assert_eq!(value["paths"][0]["frames"][1]["function"], "main");
    }

    #[test]
    fn pprof_is_refused_with_the_way_to_get_it() {
        let error = write(&diff(), Format::Pprof, &mut Vec::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("-diff_base"), "{error}");
    }
}
