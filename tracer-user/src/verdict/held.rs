//! What holders say of findings and of sites: what nobody has a pointer to is a leak.

use crate::model::{Finding, FindingKind, Holders, Report, Site, Verdict};
use crate::report::{class_loading, held_by, units};

/// How sure it is at most that blocks are lost which no pointer leads to: some may be in a
/// register, or encoded.
const SURE: f64 = 0.95;

/// Sites that grow and whose blocks are lost are the surer leaks for it.
pub fn raise(site: &mut Site) {
    let Some(holders) = &site.holders else { return };
    let Some(part) = lost(holders) else { return };
    if !site.verdict.is_some_and(Verdict::grows) {
        return;
    }
    let doubt = 1.0 - site.confidence.unwrap_or(0.0);
    site.confidence = Some(1.0 - doubt * (1.0 - SURE * part));
    if part > 0.5 {
        site.verdict = Some(Verdict::Leak);
    }
}

/// The part of the blocks of which something is known that is lost.
fn lost(holders: &Holders) -> Option<f64> {
    let decided = holders.sampled.saturating_sub(holders.undecided);
    (decided > 0).then(|| holders.lost as f64 / decided as f64)
}

/// Enters what is known of the holders of each finding's sites.
pub fn enter(report: &Report, findings: &mut [Finding]) {
    let is_held = |kind: FindingKind| kind.is_growth() || kind == FindingKind::Undecided;
    for finding in findings.iter_mut().filter(|it| is_held(it.kind)) {
        let sites = report.sites.iter();
        let sites = sites.filter(|site| finding.sites.contains(&site.id));
        for holders in sites.filter_map(|site| site.holders.clone()) {
            finding.holders.get_or_insert_default().add(holders);
        }
        class_loading::enter(report, finding);
        let Some(holders) = &mut finding.holders else {
            continue;
        };
        holders.arrange(usize::MAX);
        if holders.lost > 0 {
            finding.evidence.insert(
                0,
                format!(
                    "no pointer leads to {} of {} looked for, twice: they are lost",
                    holders.lost,
                    units::counted(holders.sampled, "block")
                ),
            );
        }
        if held_by::is_cache(holders) {
            let said = "what holds it is a cache by its name".to_owned();
            finding.evidence.push(said);
        }
    }
}
