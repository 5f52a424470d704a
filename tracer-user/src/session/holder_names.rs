//! Names of traced blocks that hold others: the functions that allocated them.

use std::collections::HashMap;

use crate::model::{Holders, Link, Report};
use crate::report::held_by::{ALLOCATED, allocated_at};

/// What a report says of a site that the kernel had under a number.
type Known = HashMap<u64, (u64, String)>;

/// Gives links of traced blocks their names and their sites' ids.
pub fn name_blocks(report: &mut Report) {
    let classes = report.java_heap.iter().flat_map(|heap| &heap.classes);
    let of_classes = classes.map(|class| &class.holders);
    let mut holders = report
        .sites
        .iter()
        .map(|site| &site.holders)
        .chain(of_classes);
    if holders.all(Option::is_none) {
        return;
    }
    let mut known = Known::new();
    for site in &report.sites {
        let name = (site.id, allocated_at(site));
        let indices = site.indices.iter();
        known.extend(indices.map(|index| (u64::from(*index), name.clone())));
    }
    let classes = report
        .java_heap
        .iter_mut()
        .flat_map(|heap| &mut heap.classes);
    let of_classes = classes.map(|class| &mut class.holders);
    let of_sites = report.sites.iter_mut().map(|site| &mut site.holders);
    for holders in of_sites.chain(of_classes).flatten() {
        name_links(holders, &known);
    }
}

fn name_links(holders: &mut Holders, known: &Known) {
    for mut chain in std::mem::take(&mut holders.chains) {
        let mut links: Vec<Link> = Vec::new();
        for mut link in chain.links {
            if let Some((id, function)) = link.site.and_then(|index| known.get(&index)) {
                link.site = Some(*id);
                link.name = match link.name.is_empty() {
                    true => format!("{ALLOCATED}{function}"),
                    false => format!("{}, {ALLOCATED}{function}", link.name),
                };
            }
            // Several sites of the kernel may be one.
            match links.last_mut().filter(|last| last.is_like(&link)) {
                Some(last) => last.repeated += link.repeated,
                None => links.push(link),
            }
        }
        chain.links = links;
        holders.add_chain(chain);
    }
    holders.arrange(usize::MAX);
}
