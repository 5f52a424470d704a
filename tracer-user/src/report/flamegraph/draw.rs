//! A tree drawn by inferno.
//!
//! inferno merges boxes by name and colours them by name. So each box goes in
//! under a number of its own, and the numbers in the finished drawing are
//! replaced by what the box is.

use std::cmp::Reverse;

use anyhow::{Context, Result};
pub use inferno::flamegraph::Direction;
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options, TextTruncateDirection};

use super::tree::{Node, Tree};
use crate::report::java;

/// Boxes below this share of the whole are not drawn; their parents are.
const MIN_SHARE: f64 = 0.0001;
/// Nor are more boxes than this, the lightest first. With the two limits below
/// it bounds a drawing to some 150 MB; one of common names has a tenth of that.
const MAX_BOXES: usize = 50_000;
/// Letters of a name that a box says when pointed at, and those of the place.
const MAX_LABEL: usize = 256;
const MAX_TOOLTIP: usize = 320;
/// Width of all boxes together before a browser stretches them, pixels.
const WIDTH: f64 = 1180.0;
/// Width of a character, and of what a box needs beside its text, pixels.
const CHARACTER: f64 = 7.3;
const PADDING: f64 = 3.0;
/// Room for the legend, pixels.
const LEGEND_HEIGHT: u32 = 20;
/// Behind the boxes.
const BACKGROUND: Color = Color {
    r: 250,
    g: 250,
    b: 250,
};

/// What is drawn.
pub struct Scene<'a> {
    /// The heading.
    pub title: String,
    /// The line below the heading.
    pub subtitle: String,
    /// Said instead of a drawing when no box has a width.
    pub empty: String,
    /// What the colours mean.
    pub legend: Vec<Legend>,
    /// The boxes.
    pub tree: &'a Tree,
    /// What a box says about itself when pointed at.
    pub tooltip: &'a dyn Fn(&Node) -> String,
    /// The colour of a box.
    pub colour: &'a dyn Fn(&Node) -> Color,
    /// Whether roots are at the bottom or, inverted, on top.
    pub direction: Direction,
}

/// One colour and what it means.
pub struct Legend {
    /// The colour.
    pub colour: Color,
    /// Its meaning.
    pub text: String,
}

/// Draws the scene as an SVG document.
///
/// # Errors
/// Fails when inferno does, or when its drawing is not shaped as expected.
pub fn draw(scene: &Scene<'_>) -> Result<String> {
    if scene.tree.root().weight == 0 {
        return Ok(empty(scene));
    }
    let plan = Plan::new(scene);
    let mut palette = PaletteMap::default();
    for (number, node) in plan.boxes.iter().enumerate() {
        palette.insert(placeholder(number), (scene.colour)(node));
    }
    // inferno looks up the colour of the root under an empty name.
    palette.insert("", (scene.colour)(scene.tree.root()));
    let mut options = Options::default();
    options.title.clone_from(&scene.title);
    options.subtitle = Some(match plan.is_whole {
        true => scene.subtitle.clone(),
        false => format!("{}; the {MAX_BOXES} largest boxes", scene.subtitle),
    });
    options.count_name = "bytes".into();
    options.palette_map = Some(&mut palette);
    options.bgcolors = Some(BackgroundColor::Flat(BACKGROUND));
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.min_width = 0.0;
    options.direction = scene.direction;
    let mut svg = Vec::new();
    flamegraph::from_lines(
        &mut options,
        plan.lines.iter().map(String::as_str),
        &mut svg,
    )
    .context("cannot draw the flamegraph")?;
    let svg = String::from_utf8(svg).context("the flamegraph is not UTF-8")?;
    label(&svg, scene, &plan).context("the flamegraph has an unexpected shape")
}

/// The boxes that are drawn, and inferno's input.
struct Plan<'a> {
    /// In the order of their numbers; the root is 0.
    boxes: Vec<&'a Node>,
    lines: Vec<String>,
    /// Whether all boxes that are wide enough are there.
    is_whole: bool,
}

impl<'a> Plan<'a> {
    fn new(scene: &Scene<'a>) -> Self {
        let tree = scene.tree;
        let (drawn, is_whole) = heaviest(tree, MAX_BOXES);
        let mut plan = Self {
            is_whole,
            boxes: Vec::new(),
            lines: Vec::new(),
        };
        let mut path: Vec<String> = Vec::new();
        let mut next = vec![(0, 0)];
        while let Some((index, depth)) = next.pop() {
            let node = &tree.nodes()[index];
            path.truncate(depth);
            path.push(placeholder(plan.boxes.len()));
            plan.boxes.push(node);
            let mut shown = tree.children(index);
            shown.retain(|child| drawn[*child]);
            let below = shown.iter().fold(0_u64, |sum, child| {
                sum.saturating_add(tree.nodes()[*child].weight)
            });
            let own = node.weight.saturating_sub(below);
            // inferno draws the root by itself, so its number is left out.
            if own > 0 && path.len() > 1 {
                plan.lines.push(format!("{} {own}", path[1..].join(";")));
            }
            next.extend(shown.iter().rev().map(|child| (*child, depth + 1)));
        }
        plan
    }
}

/// Which nodes are drawn: those wide enough, and of these the heaviest; and
/// whether that is all of those. A parent is not lighter than its children, and
/// comes first.
fn heaviest(tree: &Tree, limit: usize) -> (Vec<bool>, bool) {
    let nodes = tree.nodes();
    let least = MIN_SHARE * tree.root().weight as f64;
    let wide = |index: &usize| nodes[*index].weight > 0 && nodes[*index].weight as f64 >= least;
    let mut order: Vec<usize> = (0..nodes.len()).filter(wide).collect();
    order.sort_by_key(|index| (Reverse(nodes[*index].weight), *index));
    let is_whole = order.len() <= limit;
    let mut drawn = vec![false; nodes.len()];
    for index in order.into_iter().take(limit) {
        drawn[index] = true;
    }
    (drawn, is_whole)
}

/// The name under which a box goes in; sorts by number.
fn placeholder(number: usize) -> String {
    format!("{number:08}")
}

/// Replaces the boxes' numbers by names and tooltips, and adds the legend.
fn label(svg: &str, scene: &Scene<'_>, plan: &Plan<'_>) -> Option<String> {
    const BOX: &str = "<g><title>";
    let mut parts = svg.split(BOX);
    let (before, frames) = parts.next()?.split_once(r#"<svg id="frames""#)?;
    let before = with_legend(before, &scene.legend)?;
    let mut labelled = format!("{before}<svg id=\"frames\"{frames}");
    for part in parts {
        let (title, rest) = part.split_once("</title>")?;
        let (shape, rest) = rest.split_once("<text ")?;
        let (attributes, rest) = rest.split_once('>')?;
        let (_, rest) = rest.split_once("</text>")?;
        let number = title
            .split(' ')
            .next()
            .filter(|name| *name != "all")
            .map_or(Ok(0), str::parse);
        let node = plan.boxes.get(number.ok()?)?;
        let name = escape(&letters(&node.label, MAX_LABEL));
        // The script takes everything up to the last parenthesis for the name.
        let tooltip = letters(&(scene.tooltip)(node), MAX_TOOLTIP);
        let tooltip = escape(&tooltip.replace('(', "[").replace(')', "]"));
        let share = node.weight as f64 / scene.tree.root().weight as f64;
        let text = escape(&cut(node, share));
        labelled.push_str(&format!(
            "{BOX}{name} ({tooltip})</title>{shape}<text {attributes}>{text}</text>{rest}"
        ));
    }
    Some(labelled)
}

/// As much of a name as fits a box, for viewers that do not run the script.
fn cut(node: &Node, share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number; one below zero becomes zero"
    )]
    let room = ((share * WIDTH - PADDING) / CHARACTER) as usize;
    let label = match node.code() {
        Some(code) if code.origin.is_java() => java::shorten(&node.label, room),
        _ => letters(&node.label, room.max(MAX_LABEL)),
    };
    match room {
        0..3 => String::new(),
        _ if label.chars().count() <= room => label,
        _ => label.chars().take(room - 2).chain("..".chars()).collect(),
    }
}

/// As many letters of a text, with its two ends and an ellipsis between them if
/// it has more.
fn letters(text: &str, limit: usize) -> String {
    // Each letter has one byte at least.
    if text.len() <= limit || text.chars().count() <= limit {
        return text.to_owned();
    }
    let half = limit / 2;
    let head: String = text.chars().take(half).collect();
    let tail = text.char_indices().rev().nth(limit - half - 2);
    format!("{head}…{}", &text[tail.map_or(0, |(at, _)| at)..])
}

/// The head of a drawing, which gets higher by a row at the bottom: coloured
/// squares and what they mean.
fn with_legend(head: &str, legend: &[Legend]) -> Option<String> {
    let (_, rest) = head.split_once(" height=\"")?;
    let (height, _) = rest.split_once('"')?;
    let bottom = height.parse::<u32>().ok()? + LEGEND_HEIGHT;
    let mut text = head
        .replace(
            &format!(r#" height="{height}""#),
            &format!(r#" height="{bottom}""#),
        )
        .replace(&format!(" {height}\""), &format!(" {bottom}\""));
    let mut x = 10;
    for Legend { colour, text: name } in legend {
        text.push_str(&format!(
            r#"<rect x="{x}" y="{}" width="10" height="10" fill="rgb({},{},{})"/><text x="{}" y="{}">{}</text>"#,
            bottom - 17,
            colour.r,
            colour.g,
            colour.b,
            x + 14,
            bottom - 8,
            escape(name)
        ));
        x += 30 + 8 * name.chars().count();
    }
    Some(text)
}

/// A drawing that says that there is nothing to draw.
fn empty(scene: &Scene<'_>) -> String {
    let text = |y, size, text: &str| {
        format!(
            r#"<text x="50%" y="{y}" font-size="{size}">{}</text>"#,
            escape(text)
        )
    };
    format!(
        concat!(
            r#"<?xml version="1.0" standalone="no"?>"#,
            r#"<svg version="1.1" width="1200" height="120" viewBox="0 0 1200 120" "#,
            r#"xmlns="http://www.w3.org/2000/svg" font-family="monospace" text-anchor="middle">"#,
            r##"<rect width="100%" height="100%" fill="#fafafa"/>{}{}{}</svg>"##,
            "\n"
        ),
        text(30, 17, &scene.title),
        text(60, 14, &scene.empty),
        text(90, 12, &scene.subtitle)
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::flamegraph::Amount;
    use crate::report::sample;

    #[test]
    fn the_heaviest_boxes_are_drawn_and_their_parents_with_them() {
        let mut tree = Tree::default();
        for number in 0..100 {
            let frames: Vec<_> = (0..10)
                .map(|depth| sample::library(&format!("f{number}_{depth}"), 1))
                .collect();
            let bytes = if number == 57 { 5 } else { 1 };
            let live = Amount::exact(bytes, 1);
            tree.add(&[], &frames, Amount::default(), live);
        }
        for limit in [1, 11, 12, 500] {
            let (drawn, is_whole) = heaviest(&tree, limit);
            let count = drawn.iter().filter(|drawn| **drawn).count();
            assert!(count == limit && !is_whole);
            let mut reached = vec![0];
            let mut next = 0;
            while let Some(index) = reached.get(next) {
                let children = tree.children(*index).into_iter();
                reached.extend(children.filter(|child| drawn[*child]));
                next += 1;
            }
            assert_eq!(reached.len(), limit, "none without its parent");
            if limit >= 11 {
                let labels = reached.iter().map(|at| tree.nodes()[*at].label.as_str());
                assert_eq!(labels.filter(|label| label.starts_with("f57_")).count(), 10);
            }
        }
        assert!(heaviest(&tree, 1001).1);
    }

    #[test]
    fn a_long_name_keeps_its_ends() {
        assert_eq!(letters("abcdefgh", 8), "abcdefgh");
        assert_eq!(letters("abcdefgh", 7), "abc…fgh");
        assert_eq!(letters("日本語日本語", 6), "日本語日本語");
        assert_eq!(letters("日本語日本語", 5), "日本…本語");
    }
}
