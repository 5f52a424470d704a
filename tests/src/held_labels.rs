//! How the blocks of the labelled programs `holders_*` are held, and how much of what a report says of
//! that is right.

use anyhow::{Context, Result, ensure};

use super::model::{Holders, LinkKind, Site};

/// How the blocks of a function are held: by a root of this kind with this in its name, or by
/// nobody.
pub type Label = (&'static str, Option<(LinkKind, &'static str)>);

/// `holders_cpp.cpp`.
pub const CPP: &[Label] = &[
    ("in_vector", Some((LinkKind::Global, "g_vector"))),
    ("in_map", Some((LinkKind::Global, "g_sessions"))),
    ("in_list", Some((LinkKind::Global, "g_list"))),
    ("by_base_class", Some((LinkKind::Global, "g_registry"))),
    (
        "in_thread_local",
        Some((LinkKind::ThreadLocal, "t_sessions")),
    ),
    ("in_static", Some((LinkKind::Global, "sessions"))),
    ("in_closure", Some((LinkKind::Global, "g_callbacks"))),
    ("of_stack", Some((LinkKind::Stack, "holders_cpp ("))),
    ("dropped", None),
    ("in_cycle", None),
    ("a_list", None),
    ("behind_freed", None),
];

/// `holders_c.c`.
pub const C: &[Label] = &[
    ("in_table", Some((LinkKind::Global, "g_table"))),
    ("in_queue", Some((LinkKind::Global, "g_queue"))),
    ("in_slots", Some((LinkKind::ThreadLocal, "t_slots"))),
    (
        "in_mapping",
        Some((LinkKind::Mapping, "memory without a file")),
    ),
    ("large", Some((LinkKind::Global, "g_large"))),
    ("forgotten", None),
    ("forgotten_large", None),
];

/// `holders_rust.rs`.
pub const RUST: &[Label] = &[
    ("in_registry", Some((LinkKind::Global, "REGISTRY"))),
    ("in_own", Some((LinkKind::ThreadLocal, "OWN"))),
    ("in_channel", Some((LinkKind::Global, "CHANNEL"))),
    ("forgotten", None),
    ("in_cycle", None),
];

/// Blocks of each label.
pub const COUNT: u64 = 64;

/// How much of what was said is right.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Blocks that nobody holds.
    pub lost: u64,
    /// Those of them of which that was said.
    pub lost_found: u64,
    /// Blocks of which it was said, and that somebody holds.
    pub lost_wrongly: u64,
    /// Blocks that somebody holds.
    pub held: u64,
    /// Those of them whose root was named.
    pub held_rightly: u64,
}

impl Tally {
    /// Of sites of a program with these labels.
    ///
    /// # Errors
    /// Fails if a label's blocks are not there.
    pub fn of(sites: &[Site], labels: &[Label]) -> Result<Self> {
        let mut tally = Self::default();
        for (function, root) in labels {
            let holders = holders_of(sites, function)?;
            ensure!(holders.sampled == COUNT, "{function}: {holders:?}");
            match root {
                None => {
                    tally.lost += COUNT;
                    tally.lost_found += holders.lost;
                }
                Some((kind, name)) => {
                    tally.held += COUNT;
                    tally.lost_wrongly += holders.lost;
                    tally.held_rightly += held_by(&holders, *kind, name);
                }
            }
        }
        Ok(tally)
    }

    /// Of the blocks that nobody holds, the part that was found.
    pub fn recall(&self) -> f64 {
        part(self.lost_found, self.lost)
    }

    /// Of the blocks that were said to be lost, the part that is.
    pub fn precision(&self) -> f64 {
        part(self.lost_found, self.lost_found + self.lost_wrongly)
    }

    /// Of the blocks that somebody holds, the part whose root was named.
    pub fn roots(&self) -> f64 {
        part(self.held_rightly, self.held)
    }
}

fn part(part: u64, all: u64) -> f64 {
    part as f64 / all as f64
}

/// The sites of a function's largest blocks, of which there are `COUNT`: what holds them may be
/// allocated by it too.
///
/// # Errors
/// Fails if there are none.
pub fn sites_of<'a>(sites: &'a [Site], function: &'a str) -> Result<Vec<&'a Site>> {
    let is_it = |site: &&Site| {
        let mut frames = site.frames.iter();
        frames.any(|frame| {
            let name = frame.function.as_deref().unwrap_or_default();
            let name = name.replace("(anonymous namespace)::", "");
            let name = name.split('(').next().unwrap_or_default();
            name.rsplit("::").next() == Some(function) && site.live_count > 0
        })
    };
    let sites: Vec<&Site> = sites.iter().filter(is_it).collect();
    let size = |site: &Site| site.live_bytes / site.live_count;
    let largest = sites.iter().filter(|site| site.live_count >= COUNT / 2);
    let largest = largest.map(|site| size(site)).max();
    let largest = largest.with_context(|| format!("no site of {function}"))?;
    let sites = sites.into_iter();
    Ok(sites.filter(|site| size(site) == largest).collect())
}

/// Who holds these.
///
/// # Errors
/// Fails if there are none, or it was not looked for.
pub fn holders_of(sites: &[Site], function: &str) -> Result<Holders> {
    let mut sum = Holders::default();
    for site in sites_of(sites, function)? {
        let holders = site.holders.clone();
        sum.add(holders.with_context(|| format!("no holders of {function}"))?);
    }
    Ok(sum)
}

/// Blocks whose root is the one.
pub fn held_by(holders: &Holders, kind: LinkKind, name: &str) -> u64 {
    let chains = holders.chains.iter();
    let right = chains.filter(|chain| {
        let root = chain.links.first();
        root.is_some_and(|root| root.kind == kind && root.name.contains(name))
    });
    right.map(|chain| chain.blocks).sum()
}
