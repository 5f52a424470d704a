//! Flamegraphs as interactive SVG, drawn by inferno.
//!
//! inferno lays out the boxes and brings search and zoom; names, tooltips and
//! colours of the boxes are ours (see [`draw`]), because a tooltip here says
//! more than a share and a colour stands for where the code comes from.

mod colour;
mod draw;
pub mod holders;
mod tree;

use std::io::Write;

use anyhow::Result;

pub use draw::{Direction, Legend, Scene, draw};
pub use tree::{Amount, Code, Node, Tree, Verdicts};

use super::words::Words;
use super::{java_growth, names, text, units};
use crate::model::sampling::rounded;
use crate::model::{Frame, Origin, Report};

pub use colour::{GROWN, SAME, SHRUNK, change};

/// Draws the live bytes of a report. A report without live bytes becomes a
/// drawing that says so.
///
/// # Errors
/// Those of the writer, or of inferno.
pub fn write(report: &Report, writer: &mut dyn Write) -> Result<()> {
    let tree = tree(report);
    let total = tree.root().after.bytes;
    let words = Words::of(report);
    let live = |node: &Node| tooltip(node, total, words);
    let colour = |node: &Node| colour::judged(node);
    let svg = draw(&Scene {
        title: match report.settings.growth {
            true => format!("Growth of {}", who(report)),
            false => format!("Live memory of {}", who(report)),
        },
        subtitle: subtitle(report),
        empty: text::nothing_live(report),
        legend: judged_legend(live_frames(report), &tree),
        tree: &tree,
        tooltip: &live,
        colour: &colour,
        direction: Direction::Straight,
    })?;
    Ok(writer.write_all(svg.as_bytes())?)
}

/// Draws a judged tree of these frames under a title and a subtitle.
///
/// # Errors
/// Those of the writer, or of inferno.
pub fn write_tree<'a>(
    tree: &Tree,
    frames: impl Iterator<Item = &'a Frame>,
    (title, subtitle): (&str, &str),
    writer: &mut dyn Write,
) -> Result<()> {
    let total = tree.root().after.bytes;
    let tooltip = |node: &Node| {
        let mut text = format!(
            "{}, {} of all",
            units::counted(node.after.bytes, "byte"),
            units::percent(node.after.bytes, total)
        );
        if let Some(place) = node.place() {
            text.push_str(&format!(", {place}"));
        }
        text
    };
    let colour = |node: &Node| colour::judged(node);
    let svg = draw(&Scene {
        title: title.to_owned(),
        subtitle: subtitle.to_owned(),
        empty: "Nothing has become more.".to_owned(),
        legend: judged_legend(frames, tree),
        tree,
        tooltip: &tooltip,
        colour: &colour,
        direction: Direction::Straight,
    })?;
    Ok(writer.write_all(svg.as_bytes())?)
}

/// Draws by how many bytes Java classes grew, and where they are allocated.
///
/// # Errors
/// Those of the writer, or of inferno.
pub fn write_java(report: &Report, writer: &mut dyn Write) -> Result<()> {
    let paths = java_growth::paths(report);
    let mut tree = Tree::default();
    for path in &paths {
        let grown = Amount::exact(path.bytes, path.instances);
        let roots = java_growth::roots(report, path);
        tree.add(&roots, &path.frames, Amount::default(), grown);
    }
    let total = tree.root().after.bytes;
    let tooltip = |node: &Node| {
        format!(
            "{} grown, {} of all, {}",
            units::counted(node.after.bytes, "byte"),
            units::percent(node.after.bytes, total),
            units::counted(node.after.count, "object")
        )
    };
    let colour = |node: &Node| colour::origin(node);
    let svg = draw(&Scene {
        title: format!("{} of {}", java_growth::title(report), who(report)),
        subtitle: format!(
            "{} in {} more than {} before; divided among call paths as the JVM's samples are",
            units::bytes(total),
            units::counted(tree.root().after.count, "object"),
            units::seconds(report.duration)
        ),
        empty: "No Java class grows, or --java-heap was not asked for.".to_owned(),
        legend: legend(paths.iter().flat_map(|path| &path.frames)),
        tree: &tree,
        tooltip: &tooltip,
        colour: &colour,
        direction: Direction::Straight,
    })?;
    Ok(writer.write_all(svg.as_bytes())?)
}

/// The frames of what is live.
fn live_frames(report: &Report) -> impl Iterator<Item = &Frame> {
    let live = report.sites.iter().filter(|site| site.live_bytes > 0);
    live.flat_map(|site| &site.frames)
}

fn tree(report: &Report) -> Tree {
    let mut tree = Tree::default();
    for site in report.sites.iter().filter(|site| site.live_bytes > 0) {
        let live = Amount::live(site);
        let frames = names::drawn_frames(site);
        tree.add_judged(
            &names::roots(report, site),
            &frames,
            (Amount::default(), live),
            Verdicts::of(site.verdict, live.bytes),
        );
    }
    tree
}

/// What the colours mean: those of verdicts, then those of code, which are paler where
/// nothing grows.
fn judged_legend<'a>(frames: impl Iterator<Item = &'a Frame>, tree: &Tree) -> Vec<Legend> {
    let Verdicts {
        leak,
        growing,
        calm,
    } = tree.root().verdicts;
    let verdicts = [
        (leak, colour::LEAK, "leak"),
        (growing, colour::GROWING, "growing"),
    ];
    let paler = (calm, colour::PALE, "paler: no growth");
    let entry = |(bytes, colour, text): (u64, _, &str)| {
        (bytes > 0).then(|| Legend {
            colour,
            text: text.to_owned(),
        })
    };
    let verdicts = verdicts.into_iter().filter_map(entry);
    let code = legend(frames);
    verdicts.chain(code).chain(entry(paler)).collect()
}

fn tooltip(node: &Node, total: u64, words: Words) -> String {
    let mut text = format!(
        "{}{}, {} of {}, {}",
        units::counted(node.after.bytes, "byte"),
        node.after.error(),
        units::percent(node.after.bytes, total),
        words.live,
        units::counted(node.after.count, words.unit)
    );
    if let Some(place) = node.place() {
        text.push_str(&format!(", {place}"));
    }
    if let Some(tiers) = tiers(node) {
        text.push_str(&format!(", {tiers}"));
    }
    if let Some(verdicts) = verdicts(node) {
        text.push_str(&format!(", {verdicts}"));
    }
    text
}

/// The share of what was said of its memory.
fn verdicts(node: &Node) -> Option<String> {
    let said = node.verdicts;
    let said = [
        ("leak", said.leak),
        ("growing", said.growing),
        ("no growth", said.calm),
    ];
    shares(&said, node.after.bytes)
}

/// Each part by its share, without those that are nothing; `None` if all are.
fn shares(parts: &[(&str, u64)], all: u64) -> Option<String> {
    let used = parts.iter().filter(|(_, sum)| *sum > 0);
    let share = |(name, sum): &(&str, u64)| match units::percent(*sum, all) {
        _ if *sum == all => (*name).to_owned(),
        percent => format!("{percent} {name}"),
    };
    let used: Vec<String> = used.map(share).collect();
    (!used.is_empty()).then(|| used.join(" "))
}

/// How a Java method was run: the share of its memory by each way.
fn tiers(node: &Node) -> Option<String> {
    let ways = [
        ("inlined", None),
        ("interpreted", Some(Origin::Interpreted)),
        ("C1-compiled", Some(Origin::C1)),
        ("compiled", Some(Origin::C2)),
    ];
    let java = node.codes().filter(|(code, _)| code.origin.is_java());
    let shares = ways.map(|(name, way)| {
        let is_way = |code: &Code| match way {
            None => code.inlined,
            Some(origin) => !code.inlined && code.origin == origin,
        };
        let weights = java.clone().filter(|(code, _)| is_way(code));
        let sum = weights.fold(0_u64, |sum, (_, weight)| sum.saturating_add(*weight));
        (name, sum)
    });
    self::shares(&shares, node.weight)
}

fn who(report: &Report) -> String {
    match report.processes.as_slice() {
        [process] => names::process(process),
        processes => format!("{} processes", processes.len()),
    }
}

fn subtitle(report: &Report) -> String {
    let totals = &report.totals;
    let what = match report.settings.growth {
        true => "first touched, and in memory, after",
        false => "allocated and not freed during",
    };
    let mut text = format!(
        "{} in {} {what} {}",
        units::bytes(totals.live_bytes),
        units::counted(totals.live_count, Words::of(report).unit),
        units::seconds(report.duration)
    );
    if report.settings.older_than > 0.0 {
        text.push_str(&format!(
            ", live for at least {}",
            units::seconds(report.settings.older_than)
        ));
    }
    if report.settings.survived > 0 {
        text.push_str(&format!(
            ", survived {}",
            units::counted(report.settings.survived.into(), "garbage collection")
        ));
    }
    if let Some(sampling) = &report.sampling {
        text.push_str(&format!(
            "; estimates {}, ± their standard errors: {} in all",
            sampling.how(),
            units::bytes(rounded(sampling.errors.live_bytes))
        ));
    }
    match report.lost_events() {
        0 => {}
        lost => text.push_str(&format!(
            "; estimates: {} lost",
            units::counted(lost, "event")
        )),
    }
    text
}

/// The kinds of code that occur, in a fixed order.
fn legend<'a>(frames: impl Iterator<Item = &'a Frame>) -> Vec<Legend> {
    let codes: Vec<Code> = frames.map(kind).collect();
    let occurs = |code: Code| codes.contains(&code);
    let plain = |origin| Code {
        origin,
        inlined: false,
    };
    let inlined = Code {
        origin: Origin::C2,
        inlined: true,
    };
    [
        (plain(Origin::Program), "program"),
        (plain(Origin::Library), "library"),
        (plain(Origin::Interpreted), "interpreted"),
        (plain(Origin::C1), "C1-compiled"),
        (plain(Origin::C2), "compiled"),
        (inlined, "inlined"),
        (plain(Origin::Python), "Python"),
        (plain(Origin::JavaScript), "JavaScript"),
        (plain(Origin::Stub), "JVM stub"),
        (plain(Origin::Jit), "JIT"),
        (plain(Origin::Unknown), "unknown"),
    ]
    .into_iter()
    .filter(|(code, _)| occurs(*code))
    .map(|(code, text)| Legend {
        colour: colour::base(Some(code)),
        text: text.into(),
    })
    .collect()
}

/// What a frame is in the legend: inlined Java code is one thing, whichever
/// compiler inlined it; other inlined code is what it was inlined into.
fn kind(frame: &Frame) -> Code {
    match (frame.origin.is_java(), frame.inlined) {
        (true, true) => Code {
            origin: Origin::C2,
            inlined: true,
        },
        _ => Code {
            origin: frame.origin,
            inlined: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn svg(report: &Report) -> String {
        let mut svg = Vec::new();
        write(report, &mut svg).unwrap();
        String::from_utf8(svg).unwrap()
    }

    #[test]
    fn every_box_says_its_exact_bytes_and_place() {
        let svg = svg(&sample::report());
        for title in [
            "all (11,208,104 bytes, 100% of live, 11,032 blocks, 90.1% leak 9.9% no growth)",
            "main (11,208,104 bytes, 100% of live, 11,032 blocks, /src/leaky/main.cpp:90, 90.1% leak 9.9% no growth)",
            "open_session(int) (10,097,063 bytes, 90.1% of live, 10,007 blocks, /src/leaky/session.cpp:42, leak)",
            "Cache::insert(Key const&amp;) (1,045,504 bytes, 9.3% of live, 1,024 blocks, /src/leaky/cache.cpp:13, no growth)",
            "load_config() (65,537 bytes, 0.6% of live, 1 block, /src/leaky/main.cpp:20, no growth)",
        ] {
            assert!(svg.contains(&format!("<title>{title}</title>")), "{title}");
        }
        assert!(
            !svg.contains("parse()"),
            "a site that holds nothing is not drawn"
        );
        assert_eq!(svg.matches("malloc (").count(), 3);
    }

    #[test]
    fn boxes_of_a_sample_say_their_standard_errors() {
        let svg = svg(&sample::sampled_report());
        for title in [
            "main (11,208,104 bytes ± 2.35 MiB, 100% of live, 11,032 blocks, /src/leaky/main.cpp:90, 90.1% leak 9.9% no growth)",
            "Cache::insert(Key const&amp;) (1,045,504 bytes ± 724 KiB, 9.3% of live, 1,024 blocks, /src/leaky/cache.cpp:13, no growth)",
        ] {
            assert!(svg.contains(&format!("<title>{title}</title>")), "{title}");
        }
        assert!(svg.contains("estimates by a sample (one in 524288 bytes)"));
    }

    fn fill<'a>(svg: &'a str, name: &str) -> &'a str {
        let from = svg.find(&format!("<title>{name} (")).unwrap();
        let rest = &svg[from..];
        let at = rest.find("fill=\"").unwrap();
        rest[at..].split('"').nth(1).unwrap()
    }

    #[test]
    fn origins_and_inlining_have_colours_of_their_own() {
        let mut report = sample::report();
        report.sites.iter_mut().for_each(|site| site.verdict = None);
        let svg = svg(&report);
        let names = ["main", "malloc", "Session::Session()"];
        let fills = names.map(|name| fill(&svg, name));
        assert!(
            fills[0] != fills[1] && fills[1] != fills[2] && fills[0] != fills[2],
            "{fills:?}"
        );
        assert!(svg.contains(">program</text>") && svg.contains(">library</text>"));
        assert!(!svg.contains(">JIT</text>") && !svg.contains(">leak</text>"));
    }

    #[test]
    fn verdicts_have_colours_of_their_own() {
        let mut report = sample::report();
        let judged = svg(&report);
        for text in ["leak", "program", "library", "paler: no growth"] {
            assert!(judged.contains(&format!(">{text}</text>")), "{text}");
        }
        assert!(!judged.contains(">growing</text>"));
        let of = |svg: &str, name: &str| {
            let rgb = fill(svg, name)
                .trim_start_matches("rgb(")
                .trim_end_matches(')');
            let channels = rgb.split(',').map(|channel| channel.parse::<u8>().unwrap());
            <[u8; 3]>::try_from(channels.collect::<Vec<_>>()).unwrap()
        };
        // Red is what leaks; half of main does.
        for name in ["open_session(int)", "main"] {
            let [red, green, blue] = of(&judged, name);
            assert!(red > 200 && green < 80 && blue < 90, "{name}");
        }
        let cache = of(&judged, "Cache::insert(Key const&amp;)");
        report.sites[1].verdict = Some(crate::model::Verdict::Growing);
        let growing = svg(&report);
        let [red, green, blue] = of(&growing, "Cache::insert(Key const&amp;)");
        assert!(
            red > 240 && green > 180 && blue < 70,
            "{red} {green} {blue}"
        );
        assert!(growing.contains(">growing</text>"));
        report.sites[1].verdict = None;
        let unknown = of(&svg(&report), "Cache::insert(Key const&amp;)");
        assert!(cache[2] > unknown[2], "what does not grow is paler");
    }

    #[test]
    fn java_code_is_told_apart_by_how_it_was_run() {
        let svg = svg(&sample::java_report());
        for title in [
            "Main.main (30,021 bytes, 100% of live, 3 blocks, Main.java:9, interpreted)",
            "com.acme.Cart.add (20,014 bytes, 66.7% of live, 2 blocks, Cart.java:7, \
             50.0% C1-compiled 50.0% compiled)",
            "com.acme.Cart.add (10,007 bytes, 33.3% of live, 1 block, Cart.java:7, inlined)",
        ] {
            assert!(
                svg.contains(&format!("<title>{title}</title>")),
                "{title}\n{svg}"
            );
        }
        for kind in [
            "interpreted",
            "C1-compiled",
            "compiled",
            "inlined",
            "JVM stub",
        ] {
            assert!(svg.contains(&format!(">{kind}</text>")), "{kind}");
        }
        assert!(!svg.contains(">program</text>"));
    }

    #[test]
    fn nothing_live_is_a_drawing_that_says_so() {
        let mut report = sample::report();
        report.sites.clear();
        let svg = svg(&report);
        assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("Nothing that was allocated during the run is still live."));
    }

    #[test]
    fn names_are_text_not_markup() {
        let mut report = sample::report();
        report.processes[0].name = "<script>".into();
        report.sites[0].frames[2].function = Some("</text><script>alert(1)</script>".into());
        report.sites[0].frames[2].file = Some("a(b)\"<c>".into());
        let svg = svg(&report);
        assert!(!svg.contains("<script>"), "only inferno's own script");
        assert!(
            svg.contains("&lt;/text&gt;&lt;script&gt;alert(1)&lt;/script&gt; (10,097,063 bytes")
        );
    }
}
