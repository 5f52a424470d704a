//! What was allowed and what was spent.

/// Of what was not spent so many seconds' worth are kept for later.
const KEPT: f64 = 10.0;

/// What was spent, seconds of processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// By the targets, because of tracing.
    pub targets: f64,
    /// By the tracer.
    pub tracer: f64,
}

impl Spent {
    /// Both.
    pub fn all(self) -> f64 {
        self.targets + self.tracer
    }
}

/// What may be spent yet.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ledger {
    credit: f64,
    allowed: f64,
    spent: Spent,
    rate: f64,
}

impl Ledger {
    /// Enters what was allowed and spent in the last `seconds`.
    pub fn enter(&mut self, seconds: f64, allowed: f64, spent: Spent) {
        if seconds <= 0.0 {
            return;
        }
        let now = allowed / seconds;
        // About the mean of the last seconds.
        let weight = (seconds / 2.0).min(1.0);
        self.rate = match self.allowed > 0.0 {
            true => self.rate + weight * (now - self.rate),
            false => now,
        };
        self.allowed += allowed;
        self.spent.targets += spent.targets;
        self.spent.tracer += spent.tracer;
        self.credit = (self.credit + allowed - spent.all()).min(KEPT * self.rate);
    }

    /// What may be spent yet, seconds; below zero if more was spent than allowed.
    pub fn credit(&self) -> f64 {
        self.credit
    }

    /// What may be spent in a second, lately.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// What was allowed in all.
    pub fn allowed(&self) -> f64 {
        self.allowed
    }

    /// What was spent in all.
    pub fn spent(&self) -> Spent {
        self.spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_spent_is_kept_for_some_seconds_and_debts_stay() {
        let mut ledger = Ledger::default();
        let targets = |targets| Spent {
            targets,
            tracer: 0.0,
        };
        for _ in 0..100 {
            ledger.enter(1.0, 0.01, targets(0.0));
        }
        assert!((ledger.credit() - 0.1).abs() < 1e-9, "{ledger:?}");
        ledger.enter(1.0, 0.01, targets(0.31));
        assert!((ledger.credit() + 0.2).abs() < 1e-9, "{ledger:?}");
        assert!((ledger.rate() - 0.01).abs() < 1e-9);
        assert!((ledger.allowed() - 1.01).abs() < 1e-9);
        assert!((ledger.spent().all() - 0.31).abs() < 1e-9);
    }
}
