//! Colours of boxes.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use inferno::flamegraph::color::Color;

use super::tree::{Code, Node, Verdicts};
use crate::model::Origin;

const WHITE: Color = rgb(255, 255, 255);
/// What leaks.
pub const LEAK: Color = rgb(208, 28, 40);
/// What grows, and may leak.
pub const GROWING: Color = rgb(250, 196, 0);
/// What stands for paler colours.
pub const PALE: Color = rgb(228, 228, 228);
/// How much paler than its code's colour a box is that does not grow.
const PALER: f64 = 0.45;
/// Growth.
pub const GROWN: Color = rgb(240, 90, 80);
/// Neither growth nor shrinking.
pub const SAME: Color = rgb(200, 200, 200);
/// Shrinking.
pub const SHRUNK: Color = rgb(90, 140, 245);

/// The colour that stands for a kind of code; for a process with `None`. The
/// colours of Java code are those of the flamegraphs that Java developers know
/// from async-profiler.
pub fn base(code: Option<Code>) -> Color {
    let Some(Code { origin, inlined }) = code else {
        return rgb(222, 218, 230);
    };
    match origin {
        _ if origin.is_java() && inlined => rgb(70, 205, 200),
        Origin::Program => rgb(240, 140, 60),
        Origin::Library => rgb(100, 175, 215),
        Origin::Jit => rgb(130, 195, 100),
        Origin::Interpreted => rgb(176, 222, 180),
        Origin::C1 => rgb(205, 228, 110),
        Origin::C2 => rgb(75, 205, 80),
        Origin::Python => rgb(245, 200, 80),
        Origin::JavaScript => rgb(240, 220, 110),
        Origin::Stub => rgb(170, 155, 215),
        Origin::Unknown => rgb(175, 175, 175),
    }
}

const fn rgb(r: u8, g: u8, b: u8) -> Color {
    Color { r, g, b }
}

/// The colour of a box: that of its code, a little different from name to name
/// so that neighbours can be told apart. Inlined native code is paler; inlined
/// Java code has a colour of its own.
pub fn origin(node: &Node) -> Color {
    let code = node.code();
    let paler = match code {
        Some(code) if code.inlined && !code.origin.is_java() => 0.4,
        _ => 0.0,
    };
    mix(base(code), WHITE, shade(node) + paler)
}

/// The colour of a box in a report that was judged: of what leaks or grows, if that is half
/// of it; else that of its code, paler if it does not grow.
pub fn judged(node: &Node) -> Color {
    let Verdicts {
        leak,
        growing,
        calm,
    } = node.verdicts;
    let is_half = |bytes: u64| bytes > 0 && bytes >= node.after.bytes / 2;
    let vary = |colour| mix(colour, WHITE, shade(node) / 2.0);
    match () {
        () if is_half(leak) => vary(LEAK),
        () if is_half(leak.saturating_add(growing)) => vary(GROWING),
        () if is_half(calm) => mix(origin(node), WHITE, PALER),
        () => origin(node),
    }
}

/// A share below a third that depends on the name only.
fn shade(node: &Node) -> f64 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(node.label.as_str());
    (hash % 32) as f64 / 100.0
}

/// The colour of a change, the stronger the larger it is compared with the
/// largest change of all boxes.
pub fn change(node: &Node, largest: u64) -> Color {
    let (before, after) = (node.before.bytes, node.after.bytes);
    let strength = (before.abs_diff(after) as f64 / largest.max(1) as f64).sqrt();
    match before.cmp(&after) {
        std::cmp::Ordering::Equal => mix(SAME, WHITE, shade(node)),
        std::cmp::Ordering::Less => mix(WHITE, GROWN, 0.15 + 0.85 * strength),
        std::cmp::Ordering::Greater => mix(WHITE, SHRUNK, 0.15 + 0.85 * strength),
    }
}

/// `share` of `other` in `colour`.
fn mix(colour: Color, other: Color, share: f64) -> Color {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between two bytes"
    )]
    let channel = |from: u8, to: u8| {
        (f64::from(from) + (f64::from(to) - f64::from(from)) * share.clamp(0.0, 1.0)).round() as u8
    };
    Color {
        r: channel(colour.r, other.r),
        g: channel(colour.g, other.g),
        b: channel(colour.b, other.b),
    }
}
