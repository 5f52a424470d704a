//! What the tracer has taken and lost since it began: in the run that goes on, and in those
//! before it in the same process.

use super::status::{Lost, Tracer};
use crate::model::Report;

/// Sums of all runs. What was allowed and spent goes from run to run in the session; page
/// faults and losses are counted by run.
#[derive(Debug, Default)]
pub struct Account {
    ended: Counts,
    run: Counts,
    /// Seconds: the tracer's own, its targets' because of it, and what both may take.
    spent: [f64; 3],
}

#[derive(Debug, Clone, Default)]
struct Counts {
    followed: u64,
    not_followed: u64,
    losses: Vec<Lost>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.followed += other.followed;
        self.not_followed += other.not_followed;
        for lost in other.losses {
            match self.losses.iter_mut().find(|it| it.cause == lost.cause) {
                Some(sum) => sum.count += lost.count,
                None => self.losses.push(lost),
            }
        }
    }
}

impl Account {
    /// Enters what any service's report says of the tracer, which is of all services.
    pub fn note(&mut self, report: &Report) {
        self.run.losses = report.occurred_losses().map(Lost::of).collect();
        let Some(budget) = &report.budget else {
            return;
        };
        self.spent = [
            budget.tracer_seconds,
            budget.target_seconds,
            budget.allowed_seconds,
        ];
        if let Some(faults) = &budget.faults {
            self.run.followed = faults.followed;
            self.run.not_followed = faults.not_followed;
        }
    }

    /// What comes now is of another run.
    pub fn run_ends(&mut self) {
        self.ended.add(std::mem::take(&mut self.run));
    }

    /// Tells the sums.
    pub fn tell(&self, tracer: &mut Tracer) {
        let mut all = self.ended.clone();
        all.add(self.run.clone());
        [
            tracer.seconds,
            tracer.target_seconds,
            tracer.allowed_seconds,
        ] = self.spent;
        tracer.faults_followed = all.followed;
        tracer.faults_not_followed = all.not_followed;
        tracer.losses = all.losses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BudgetReport, FaultsReport, Loss};
    use crate::report::sample;

    fn report(followed: u64, lost: u64, seconds: f64) -> Report {
        let loss = |cause: &str, count| Loss {
            cause: cause.to_owned(),
            count,
            meaning: String::new(),
        };
        Report {
            losses: vec![loss("a", lost), loss("b", 0)],
            budget: Some(BudgetReport {
                tracer_seconds: seconds,
                faults: Some(FaultsReport {
                    followed,
                    ..FaultsReport::default()
                }),
                ..BudgetReport::default()
            }),
            ..sample::report()
        }
    }

    #[test]
    fn counts_are_of_all_runs_and_a_window_without_services_takes_nothing_away() {
        let mut account = Account::default();
        account.note(&report(5, 1, 2.0));
        account.note(&report(7, 2, 3.0));
        account.run_ends();
        let mut tracer = Tracer::default();
        account.tell(&mut tracer);
        let lost = |count| {
            let cause = "a".to_owned();
            vec![Lost { cause, count }]
        };
        assert_eq!((tracer.faults_followed, tracer.seconds), (7, 3.0));
        assert_eq!(tracer.losses, lost(2));
        account.note(&report(1, 1, 3.5));
        account.tell(&mut tracer);
        assert_eq!((tracer.faults_followed, tracer.seconds), (8, 3.5));
        assert_eq!(tracer.losses, lost(3));
    }
}
