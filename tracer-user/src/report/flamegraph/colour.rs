//! Colours of boxes.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use inferno::flamegraph::color::Color;

use super::tree::Node;
use crate::report::model::Origin;

const WHITE: Color = Color {
    r: 255,
    g: 255,
    b: 255,
};
/// Growth.
pub const GROWN: Color = Color {
    r: 240,
    g: 90,
    b: 80,
};
/// Neither growth nor shrinking.
pub const SAME: Color = Color {
    r: 200,
    g: 200,
    b: 200,
};
/// Shrinking.
pub const SHRUNK: Color = Color {
    r: 90,
    g: 140,
    b: 245,
};

/// The colour that stands for an origin; for a process with `None`.
pub fn base(origin: Option<Origin>) -> Color {
    match origin {
        Some(Origin::Program) => Color {
            r: 240,
            g: 140,
            b: 60,
        },
        Some(Origin::Library) => Color {
            r: 100,
            g: 175,
            b: 215,
        },
        Some(Origin::Jit) => Color {
            r: 130,
            g: 195,
            b: 100,
        },
        Some(Origin::Unknown) => Color {
            r: 175,
            g: 175,
            b: 175,
        },
        None => Color {
            r: 222,
            g: 218,
            b: 230,
        },
    }
}

/// The colour of a box: that of its origin, a little different from name to
/// name so that neighbours can be told apart, and paler when inlined.
pub fn origin(node: &Node) -> Color {
    let paler = if node.inlined { 0.4 } else { 0.0 };
    mix(base(node.origin), WHITE, shade(node) + paler)
}

/// A share below a third that depends on the name only.
fn shade(node: &Node) -> f64 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&node.label);
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
