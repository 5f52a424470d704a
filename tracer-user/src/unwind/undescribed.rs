//! The code of a file that no call frame information describes.

use std::ops::Range;

use tracer_ebpf::rule::Rule;

use super::balanced::{Balanced, MAX_CODE};
use super::code::Code;
use super::keeping::keeps_frames;

/// Shorter code is what is put between functions.
const SHORTEST: u64 = 16;

/// Code with one rule.
pub type Stretch = (Range<u64>, Rule);

/// Where such code is, and what is known of a part of it.
pub struct Undescribed {
    /// All of it, in order.
    regions: Vec<Range<u64>>,
    /// Where functions begin that something describes, in order.
    starts: Vec<u64>,
    /// The region that was looked at last, and the stretches of it that have a rule.
    last: Option<(Range<u64>, Vec<Stretch>)>,
    /// Bytes that may yet be looked at.
    left: u64,
    told: u64,
    /// What holds where nothing is known.
    otherwise: Rule,
}

impl Default for Undescribed {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new(), Rule::NONE)
    }
}

impl Undescribed {
    /// These regions between functions that begin there; `otherwise` holds where nothing is known.
    pub fn new(regions: Vec<Range<u64>>, starts: Vec<u64>, otherwise: Rule) -> Self {
        Self {
            regions,
            starts,
            last: None,
            left: MAX_CODE,
            told: 0,
            otherwise,
        }
    }

    /// All of them.
    pub fn regions(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.regions.iter().cloned()
    }

    /// Bytes of which something is known, as far as they were asked for.
    pub const fn told(&self) -> u64 {
        self.told
    }

    /// What holds where nothing is known.
    pub const fn otherwise(&self) -> Rule {
        self.otherwise
    }

    /// The stretches of a part in order, each with its rule if one is known.
    pub fn rules(&mut self, code: &mut Code, part: Range<u64>) -> Vec<(Range<u64>, Option<Rule>)> {
        let mut rules = Vec::new();
        let mut at = part.start;
        for (range, rule) in self.known(code, &part) {
            let (start, end) = (range.start.max(at), range.end.min(part.end));
            if start >= end {
                continue;
            }
            if at < start {
                rules.push((at..start, None));
            }
            self.told += end - start;
            rules.push((start..end, Some(rule)));
            at = end;
        }
        if at < part.end {
            rules.push((at..part.end, None));
        }
        rules
    }

    /// What is known of the region that a part is of, from the part's begin on.
    fn known(&mut self, code: &mut Code, part: &Range<u64>) -> Vec<Stretch> {
        let after = self
            .regions
            .partition_point(|region| region.start <= part.start);
        let region = after.checked_sub(1).and_then(|at| self.regions.get(at));
        let Some(region) = region.filter(|it| part.end <= it.end).cloned() else {
            return Vec::new();
        };
        if self.last.as_ref().is_none_or(|(known, _)| *known != region) {
            let rules = self.look(code, &region);
            self.last = Some((region, rules));
        }
        let rules = self.last.as_ref().map_or(&[][..], |(_, rules)| rules);
        let first = rules.partition_point(|(range, _)| range.end <= part.start);
        let rest = rules.get(first..).unwrap_or_default();
        let within = rest.iter().take_while(|(range, _)| range.start < part.end);
        within.cloned().collect()
    }

    fn look(&mut self, code: &mut Code, region: &Range<u64>) -> Vec<Stretch> {
        let length = region.end - region.start;
        if length < SHORTEST {
            return Vec::new();
        }
        if length > self.left {
            return match keeps_frames(code, region) {
                true => vec![(region.clone(), Rule::FRAME_POINTER)],
                false => Vec::new(),
            };
        }
        self.left -= length;
        let is_start = |address: u64| self.starts.binary_search(&address).is_ok();
        let Some(balanced) = Balanced::of(code, region.clone(), is_start) else {
            return Vec::new();
        };
        let mut rules: Vec<Stretch> = Vec::new();
        for (range, rule) in balanced.rules() {
            let Some(rule) = rule else { continue };
            match rules.last_mut() {
                Some((last, same)) if last.end == range.start && *same == rule => {
                    last.end = range.end;
                }
                _ => rules.push((range, rule)),
            }
        }
        rules
    }
}
