//! Until when sites were seen.

use crate::model::{Report, Site};

/// Moments, seconds from the run's start.
pub struct Ends {
    /// When each process ended, or the run.
    processes: Vec<f64>,
    /// When the run ended.
    run: f64,
    /// When what a budget has followed at times was seen last.
    followed: f64,
}

impl Ends {
    /// Those of a report.
    pub fn of(report: &Report) -> Self {
        let processes = 0..report.processes.len();
        // When bursts were is not in a report, but no site is seen between them.
        let sites = report.sites.iter().filter(|site| site.survival.is_some());
        let until = report.budget.as_ref().map(|it| it.followed_until());
        Self {
            processes: processes.map(|process| report.ended(process)).collect(),
            run: report.duration,
            followed: sites
                .map(|site| site.last_seen)
                .fold(until.unwrap_or(0.0), f64::max),
        }
    }

    /// All at one moment.
    #[cfg(test)]
    pub fn at(end: f64) -> Self {
        Self {
            processes: Vec::new(),
            run: end,
            followed: end,
        }
    }

    /// When a process, by its index, ended, or the run.
    pub fn of_process(&self, process: usize) -> f64 {
        self.processes.get(process).copied().unwrap_or(self.run)
    }

    /// Until when blocks of a site were seen.
    pub fn of_site(&self, site: &Site) -> f64 {
        let end = self.of_process(site.process);
        match site.survival {
            Some(_) => end.min(self.followed),
            None => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BudgetReport, RegimeTime, Survival};
    use crate::report::sample;

    #[test]
    fn what_is_followed_at_times_is_not_seen_to_the_end() {
        let mut report = sample::report();
        report.duration = 120.0;
        for process in &mut report.processes {
            process.ended = 120.0;
        }
        for site in &mut report.sites {
            (site.first_seen, site.last_seen) = (1.0, 40.0);
        }
        let regime = |regime: &str, since, seconds| RegimeTime {
            regime: regime.to_owned(),
            since,
            seconds,
        };
        report.budget = Some(BudgetReport {
            regimes: vec![
                regime("exact", 0.0, 30.0),
                regime("sampled", 30.0, 25.0),
                regime("bursts", 55.0, 65.0),
            ],
            ..BudgetReport::default()
        });
        report.sites[0].survival = Some(Survival::default());
        let until = |report: &Report, site: usize| Ends::of(report).of_site(&report.sites[site]);
        assert_eq!((until(&report, 0), until(&report, 1)), (55.0, 120.0));
        report.sites[0].last_seen = 80.0;
        assert_eq!(until(&report, 0), 80.0, "a burst saw it");
    }
}
