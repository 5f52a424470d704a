//! One numbering of findings and call paths, whatever a table's order is.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::names;
use crate::model::{Finding, Growth, Report, RowNumber, Site};

/// The numbers of a report: first the findings that are told, in their order, each with
/// its call paths; then all other call paths with something live, memory first, what grows
/// before what does not, and then by what they hold.
pub struct Numbers<'a> {
    findings: Vec<&'a Finding>,
    by_site: HashMap<u64, RowNumber>,
    /// In the order of their numbers, after those of the findings.
    others: Vec<&'a Site>,
    /// Numbers that another table has before.
    before: usize,
}

/// What has a number.
pub struct Numbered<'a> {
    /// The finding, if it is of one.
    pub finding: Option<&'a Finding>,
    /// The call path, unless it is a finding without any.
    pub site: Option<&'a Site>,
}

impl<'a> Numbers<'a> {
    /// The numbers of a judged report.
    pub fn of(report: &'a Report) -> Self {
        Self::new(told(report).collect(), &report.sites, 0)
    }

    /// The numbers of the second table of a run within a budget, of paths that touched new
    /// memory: they go on where those of its first table, `first`, end.
    pub fn of_pages(growth: &'a Growth, first: &Numbers<'_>) -> Self {
        Self::new(Vec::new(), &growth.sites, first.last())
    }

    fn new(findings: Vec<&'a Finding>, sites: &'a [Site], before: usize) -> Self {
        let mut by_site = HashMap::new();
        for (whole, finding) in (1..).zip(&findings) {
            for (part, site) in (1..).zip(&finding.sites) {
                by_site.entry(*site).or_insert(RowNumber { whole, part });
            }
        }
        let is_other = |site: &&Site| site.live_count > 0 && !by_site.contains_key(&site.id);
        let mut others: Vec<&Site> = sites.iter().filter(is_other).collect();
        others.sort_by_cached_key(|site| {
            let grows = site.verdict.is_some_and(|verdict| verdict.grows());
            let memory = site.kind.is_memory();
            let most = (site.rank(), site.live_count);
            (Reverse((memory, grows, most)), site.id)
        });
        let from = before + findings.len() + 1;
        by_site.extend(
            (from..)
                .zip(&others)
                .map(|(whole, site)| (site.id, RowNumber::whole(whole))),
        );
        Self {
            findings,
            by_site,
            others,
            before,
        }
    }

    /// The number of a call path; `None` if nothing of it is live.
    pub fn of_site(&self, site: &Site) -> Option<RowNumber> {
        self.by_site.get(&site.id).copied()
    }

    /// The number of the finding about a class of a JVM's heap.
    pub fn of_class(&self, report: &Report, pid: u32, class: &str) -> Option<RowNumber> {
        let begin = about_class(class);
        let is_it = |finding: &&Finding| {
            let process = report.processes.get(finding.process);
            finding.title.starts_with(&begin) && process.is_some_and(|it| it.pid == pid)
        };
        let index = self.findings.iter().position(is_it)?;
        Some(RowNumber::whole(index + 1))
    }

    /// Whether a number is of a finding.
    pub const fn is_of_finding(&self, number: RowNumber) -> bool {
        number.whole > self.before && number.whole - self.before <= self.findings.len()
    }

    /// What has a number.
    pub fn find(&self, report: &'a Report, number: RowNumber) -> Option<Numbered<'a>> {
        let index = number.whole.checked_sub(self.before + 1)?;
        let Some(finding) = self.findings.get(index) else {
            let site = self.others.get(index - self.findings.len());
            return site.filter(|_| number.part == 1).map(|site| Numbered {
                finding: None,
                site: Some(site),
            });
        };
        let site = finding.sites.get(number.part - 1);
        let site = site.and_then(|id| report.sites.iter().find(|site| site.id == *id));
        (site.is_some() || number.part == 1).then_some(Numbered {
            finding: Some(finding),
            site,
        })
    }

    /// The last whole number; 0 if there is none.
    pub fn last(&self) -> usize {
        self.before + self.findings.len() + self.others.len()
    }
}

/// How the title of a finding begins that is about a class of a JVM's heap.
pub fn about_class(class: &str) -> String {
    format!("objects of {} stay", names::clean(class))
}

/// The findings that are told one by one: all but those of what does no harm.
pub fn told(report: &Report) -> impl Iterator<Item = &Finding> {
    let findings = report.findings.iter();
    findings.filter(|finding| !finding.kind.is_harmless())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_number_leads_back_to_what_has_it() {
        let mut report = sample::report();
        report.findings[0].sites = vec![1, 3];
        let numbers = Numbers::of(&report);
        let of = |id: u64| {
            let site = report.sites.iter().find(|site| site.id == id).unwrap();
            numbers.of_site(site).map(|number| number.to_string())
        };
        assert_eq!(of(1).as_deref(), Some("1"));
        assert_eq!(of(3).as_deref(), Some("1.2"));
        assert_eq!(of(2).as_deref(), Some("2"));
        assert_eq!(of(4), None, "nothing of it is live");
        let site = |text: &str| {
            let found = numbers.find(&report, text.parse().unwrap());
            found.map(|it| (it.finding.is_some(), it.site.map(|site| site.id)))
        };
        assert_eq!(site("1"), Some((true, Some(1))));
        assert_eq!(site("1.2"), Some((true, Some(3))));
        assert_eq!(site("2"), Some((false, Some(2))));
        for none in ["1.3", "2.2", "3"] {
            assert_eq!(site(none), None, "{none}");
        }
        assert_eq!(numbers.last(), 2);
    }

    #[test]
    fn pages_are_numbered_after_blocks() {
        let report = sample::report();
        let growth = Growth {
            sites: report.sites.clone(),
            balance: Vec::new(),
        };
        let blocks = Numbers::of(&report);
        let pages = Numbers::of_pages(&growth, &blocks);
        let (first, last) = (blocks.last() + 1, pages.last());
        let live = growth.sites.iter().filter(|site| site.live_count > 0);
        assert_eq!(last - blocks.last(), live.count());
        let number = pages.of_site(&growth.sites[0]);
        assert_eq!(number, Some(RowNumber::whole(first)));
        let found = pages.find(&report, RowNumber::whole(first)).unwrap();
        assert!(found.finding.is_none());
        assert_eq!(found.site.map(|site| site.id), Some(1));
        assert!(pages.find(&report, RowNumber::whole(1)).is_none());
        assert!(pages.find(&report, RowNumber::whole(last + 1)).is_none());
    }

    #[test]
    fn a_finding_without_call_paths_has_a_number_too() {
        let mut report = sample::report();
        report.findings[0].sites.clear();
        let numbers = Numbers::of(&report);
        let found = numbers.find(&report, RowNumber::whole(1)).unwrap();
        assert!(found.finding.is_some() && found.site.is_none());
        let leak = numbers.find(&report, RowNumber::whole(2)).unwrap();
        assert_eq!(leak.site.map(|site| site.id), Some(1));
    }
}
