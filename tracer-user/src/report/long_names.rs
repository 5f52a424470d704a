//! A bound for what a report takes where it is written.
//!
//! A name is kept once, but written wherever a frame has it: 16,000 call paths
//! of 127 frames with names of 16 KiB are 33 GB of text. So names are cut at
//! the length at which all of them together, as JSON has them, fit a budget.

use std::collections::HashMap;
use std::sync::Arc;

use crate::grouping::frames_mut;
use crate::model::name::{ELLIPSIS, MAX_NAME, Name};
use crate::model::{Frame, Originals, Report};

/// What the names of all frames may take where each is written out, bytes of
/// JSON: twice as much as 16,000 paths of 127 frames with common names have.
pub const MAX_WRITTEN: u64 = 512 << 20;

/// Cuts the names of a report so that they fit `budget` bytes. What was cut is
/// noted in [`Report::shortened`].
pub fn cut(report: &mut Report, budget: u64) {
    let Some(length) = longest(report, budget) else {
        return;
    };
    let mut short: HashMap<Name, Name> = HashMap::new();
    let mut shorten = |name: &mut Name| {
        if name.written() > length {
            let cut = short.entry(name.clone());
            *name = cut.or_insert_with_key(|name| cut_at(name, length)).clone();
        }
    };
    // Frames share their originals, which are kept as long as they are looked up.
    let mut originals: HashMap<*const Originals, [Arc<Originals>; 2]> = HashMap::new();
    for frame in frames_mut(report) {
        parts_mut(frame).for_each(&mut shorten);
        if let Some(shared) = &mut frame.originals {
            let known = originals.entry(Arc::as_ptr(shared));
            let [_, cut] = known.or_insert_with(|| {
                let mut cut = (**shared).clone();
                cut.names.iter_mut().for_each(&mut shorten);
                [Arc::clone(shared), Arc::new(cut)]
            });
            *shared = Arc::clone(cut);
        }
    }
    report.shortened.names += short.len() as u64;
    report.shortened.length = length as u64;
}

/// The length that names may have; `None` if all may stay as they are.
fn longest(report: &mut Report, budget: u64) -> Option<usize> {
    // How many names there are of each length.
    let mut counts = vec![0_u64; 2 * MAX_NAME + 1];
    let mut sum = 0_u64;
    let mut count = |name: &Name| {
        let length = name.written();
        counts[length.min(2 * MAX_NAME)] += 1;
        sum = sum.saturating_add(length as u64);
    };
    for frame in frames_mut(report) {
        parts_mut(frame).for_each(|name| count(name));
        let originals = frame.originals.iter().flat_map(|it| &it.names);
        originals.for_each(&mut count);
    }
    if sum <= budget {
        return None;
    }
    // With one byte more, each name that is longer takes one byte more.
    let mut longer: u64 = counts.iter().sum();
    let (mut length, mut taken) = (0, 0_u64);
    loop {
        longer -= counts[length];
        taken = taken.saturating_add(longer);
        if taken > budget || longer == 0 {
            return Some(length);
        }
        length += 1;
    }
}

/// As many whole letters as take `length` bytes of JSON with the ellipsis.
fn cut_at(name: &str, length: usize) -> Name {
    let room = length.saturating_sub(ELLIPSIS.len_utf8());
    let mut used = 0;
    let end = name.char_indices().find(|(_, letter)| {
        used += letter.len_utf8() + usize::from(matches!(letter, '"' | '\\'));
        used > room
    });
    let end = end.map_or(name.len(), |(at, _)| at);
    format!("{}{ELLIPSIS}", &name[..end]).into()
}

fn parts_mut(frame: &mut Frame) -> impl Iterator<Item = &mut Name> {
    let parts = [
        &mut frame.function,
        &mut frame.file,
        &mut frame.module,
        &mut frame.reason,
    ];
    parts.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn sum(report: &mut Report) -> u64 {
        let parts = frames_mut(report).flat_map(parts_mut);
        parts.map(|name| name.written() as u64).sum()
    }

    #[test]
    fn a_report_of_common_names_stays_as_it_is() {
        let mut report = sample::report();
        cut(&mut report, MAX_WRITTEN);
        assert_eq!(report, sample::report());
    }

    #[test]
    fn long_names_are_cut_and_short_ones_are_not() {
        let mut report = sample::report();
        let long = "\"".repeat(10_000);
        report.sites[0].frames[2].function = Some(long.as_str().into());
        report.sites[1].frames[2].function = Some(long.into());
        for budget in [100, 1_000, 2_000, 5_000, 20_000] {
            let mut short = report.clone();
            cut(&mut short, budget);
            assert!(sum(&mut short) <= budget.max(3 * 100), "{budget}");
            assert!(short.shortened.names > 0);
        }
        let mut short = report.clone();
        cut(&mut short, 5_000);
        let name = |report: &Report, frame: usize| report.sites[0].frames[frame].function.clone();
        assert_eq!(name(&short, 1).as_deref(), Some("main"));
        let cut_name = name(&short, 2).unwrap();
        assert!(cut_name.starts_with("\"\"") && cut_name.ends_with('…'));
        assert_eq!(short.shortened.names, 1, "the two are one name");
        assert!(sum(&mut short) > 4_900, "no more than needed is cut");
    }
}
