//! Call paths by the names of their functions, root first.

use crate::model::{Frame, Site};
use crate::report::names;
use crate::report::own::down_to_own;

/// The names of frames.
pub fn labels(frames: &[Frame]) -> Vec<String> {
    let label = |frame| names::label(frame).into_owned();
    frames.iter().map(label).collect()
}

/// The same down to the last of the program's own functions: by which of an allocator's
/// functions, and at which of its lines, that asks for memory does not tell leaks apart.
pub fn own(frames: &[Frame]) -> Vec<String> {
    let depth = down_to_own(frames).unwrap_or(frames.len());
    labels(&frames[..depth])
}

/// The same of a site, as numbers that names have for this run.
pub fn hashes(site: &Site) -> Vec<u64> {
    let frames = names::drawn_frames(site);
    let depth = down_to_own(&frames).unwrap_or(frames.len());
    let number = |frame: &Frame| match &frame.function {
        Some(name) => name.text_hash(),
        None => frame.address,
    };
    frames[..depth].iter().map(number).collect()
}

/// The names that all paths begin with; none if there is no path.
pub fn common(mut paths: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut common = paths.next().unwrap_or_default();
    for path in paths {
        let same = common.iter().zip(&path).take_while(|(a, b)| a == b);
        let length = same.count();
        common.truncate(length);
    }
    common
}
