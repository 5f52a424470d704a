//! Who holds memory, as a picture: roots on top, and below each what it holds, down to the
//! blocks.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use inferno::flamegraph::color::Color;

use super::draw::{Direction, Legend, Scene, draw};
use super::tree::{Amount, Node, Tree};
use super::{colour, who};
use crate::model::{Holders, Link, LinkKind, Report};
use crate::report::{held_by, names, units};

/// The boxes of blocks without a holder.
const LOST: &str = "lost: no pointer leads to it";
const UNDECIDED: &str = "whose holder was not found";

/// What a box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Variable,
    Thread,
    OtherRoot,
    Between,
    Held,
    Lost,
    Undecided,
    Process,
}

/// Kinds with the words and colours of the legend.
const LEGEND: [(Kind, Color, &str); 7] = [
    (Kind::Variable, rgb(240, 140, 60), "variable"),
    (Kind::Thread, rgb(130, 195, 100), "thread"),
    (Kind::OtherRoot, rgb(170, 155, 215), "other root"),
    (Kind::Between, rgb(100, 175, 215), "holds, and is held"),
    (Kind::Held, rgb(222, 218, 230), "what is held"),
    (Kind::Lost, colour::LEAK, "lost"),
    (Kind::Undecided, rgb(175, 175, 175), "not found"),
];

const fn rgb(r: u8, g: u8, b: u8) -> Color {
    Color { r, g, b }
}

/// Draws who holds what `--holders` looked for. The bytes of a call path, or of a Java class,
/// are divided among its holders as its sampled blocks are: they are estimates.
///
/// # Errors
/// Those of the writer, or of inferno.
pub fn write(report: &Report, writer: &mut dyn Write) -> Result<()> {
    let mut picture = Picture::default();
    for site in &report.sites {
        if let Some(holders) = &site.holders {
            let several = report.processes.len() > 1;
            let process = several.then(|| names::process_of(report, site.process));
            let held = format!("blocks allocated at {}", held_by::allocated_at(site));
            picture.add(process.as_ref(), holders, &held, site.held_bytes());
        }
    }
    for heap in &report.java_heap {
        for class in &heap.classes {
            if let (Some(holders), Some(bytes)) = (&class.holders, class.bytes.last()) {
                let process = names::process_with(report, heap.pid);
                let held = format!("objects of {}", names::clean(&class.class));
                picture.add(Some(&process), holders, &held, *bytes);
            }
        }
    }
    let svg = picture.draw(report)?;
    Ok(writer.write_all(svg.as_bytes())?)
}

#[derive(Default)]
struct Picture {
    tree: Tree,
    kinds: HashMap<String, Kind>,
    sampled: u64,
}

impl Picture {
    /// Adds what holds `bytes`.
    fn add(&mut self, process: Option<&String>, holders: &Holders, held: &str, bytes: u64) {
        self.sampled += holders.sampled;
        let chains = holders.chains.iter();
        let chains = chains.map(|chain| (boxes(&chain.links), chain.blocks));
        let lost = (vec![(LOST.to_owned(), Kind::Lost)], holders.lost);
        let undecided = (
            vec![(UNDECIDED.to_owned(), Kind::Undecided)],
            holders.undecided,
        );
        let mut shares = Shares::new(bytes, holders.sampled);
        for (mut path, blocks) in chains.chain([lost, undecided]) {
            let live = Amount::exact(shares.next(blocks), blocks);
            if blocks == 0 {
                continue;
            }
            path.push((held.to_owned(), Kind::Held));
            if let Some(process) = process {
                path.insert(0, (process.clone(), Kind::Process));
            }
            let labels: Vec<String> = path.iter().map(|(label, _)| label.clone()).collect();
            self.kinds.extend(path);
            self.tree.add(&labels, &[], Amount::default(), live);
        }
    }

    fn draw(&self, report: &Report) -> Result<String> {
        let total = self.tree.root().after.bytes;
        let tooltip = |node: &Node| {
            format!(
                "about {}, {} of what was looked for, by {}",
                units::bytes(node.after.bytes),
                units::percent(node.after.bytes, total),
                units::counted(node.after.count, "sampled block")
            )
        };
        let kind = |node: &Node| self.kinds.get(node.label.as_str()).copied();
        let of_kind = |kind| LEGEND.iter().find(|(other, ..)| Some(*other) == kind);
        let colour =
            |node: &Node| of_kind(kind(node)).map_or(colour::PALE, |(_, colour, _)| *colour);
        let occurs = |wanted: Kind| self.kinds.values().any(|kind| *kind == wanted);
        let legend = LEGEND.iter().filter(|(kind, ..)| occurs(*kind));
        draw(&Scene {
            title: format!("Holders of live memory of {}", who(report)),
            subtitle: format!(
                "{}, divided as {} of it are: estimates",
                units::bytes(total),
                units::counted(self.sampled, "sampled block")
            ),
            empty: "Nobody was looked for: --holders was not asked for, or nothing is live."
                .to_owned(),
            legend: legend
                .map(|(_, colour, text)| Legend {
                    colour: *colour,
                    text: (*text).to_owned(),
                })
                .collect(),
            tree: &self.tree,
            tooltip: &tooltip,
            colour: &colour,
            direction: Direction::Inverted,
        })
    }
}

fn boxes(links: &[Link]) -> Vec<(String, Kind)> {
    let boxes = links.iter().map(|link| {
        let kind = match link.kind {
            LinkKind::Global | LinkKind::JavaStatic => Kind::Variable,
            LinkKind::ThreadLocal | LinkKind::Stack | LinkKind::JavaThread => Kind::Thread,
            _ if link.kind.is_root() => Kind::OtherRoot,
            _ => Kind::Between,
        };
        (held_by::holder(link), kind)
    });
    boxes.collect()
}

/// Divides bytes by counts of blocks, so that the parts are the whole.
struct Shares {
    bytes: u64,
    of: u64,
    seen: u64,
    given: u64,
}

impl Shares {
    const fn new(bytes: u64, of: u64) -> Self {
        Self {
            bytes,
            of,
            seen: 0,
            given: 0,
        }
    }

    fn next(&mut self, blocks: u64) -> u64 {
        self.seen = self.seen.saturating_add(blocks).min(self.of);
        let until = u128::from(self.bytes) * u128::from(self.seen) / u128::from(self.of.max(1));
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        let share = until - self.given;
        self.given = until;
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Chain;
    use crate::report::sample;

    fn link(kind: LinkKind, name: &str) -> Link {
        Link {
            kind,
            name: name.to_owned(),
            repeated: 1,
            site: None,
        }
    }

    fn drawn(report: &Report) -> String {
        let mut svg = Vec::new();
        write(report, &mut svg).unwrap();
        String::from_utf8(svg).unwrap()
    }

    #[test]
    fn roots_are_on_top_and_boxes_say_how_much_they_hold() {
        let mut report = sample::report();
        let links = vec![
            link(LinkKind::Global, "g_sessions (leaky)"),
            link(LinkKind::UntracedBlock, "a block of 80,000 bytes"),
        ];
        report.sites[0].live_bytes = 6400;
        report.sites[0].holders = Some(Holders {
            sampled: 64,
            lost: 15,
            undecided: 1,
            chains: vec![Chain { links, blocks: 48 }],
            ..Holders::default()
        });
        let svg = drawn(&report);
        for title in [
            "all (about 6.25 KiB, 100% of what was looked for, by 64 sampled blocks)",
            "g_sessions (leaky) (about 4.69 KiB, 75.0% of what was looked for, by 48 sampled blocks)",
            "lost: no pointer leads to it (about 1.46 KiB, 23.4% of what was looked for, by 15 sampled blocks)",
            "whose holder was not found (about 100 B, 1.6% of what was looked for, by 1 sampled block)",
        ] {
            assert!(
                svg.contains(&format!("<title>{title}</title>")),
                "{title}\n{svg}"
            );
        }
        for text in ["variable", "lost", "not found", "holds, and is held"] {
            assert!(svg.contains(&format!(">{text}</text>")), "{text}");
        }
        let height = |name: &str| {
            let rest = &svg[svg.find(&format!("<title>{name}")).unwrap()..];
            let at = rest.find(" y=\"").unwrap() + 4;
            rest[at..]
                .split('"')
                .next()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        };
        assert!(height("g_sessions") < height("a block of"));
        assert!(height("all") < height("g_sessions"));
    }

    #[test]
    fn without_holders_it_says_so() {
        assert!(drawn(&sample::report()).contains("Nobody was looked for"));
    }

    #[test]
    fn shares_are_the_whole() {
        for (bytes, parts) in [(100, [1, 1, 1]), (u64::MAX, [7, 0, 57]), (0, [1, 2, 3])] {
            let mut shares = Shares::new(bytes, parts.iter().sum());
            let given: u64 = parts.iter().map(|part| shares.next(*part)).sum();
            assert_eq!(given, bytes);
        }
        assert_eq!(Shares::new(5, 0).next(3), 0);
    }
}
