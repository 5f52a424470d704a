//! What `unfreed serve` says on standard error.

use anyhow::Result;

use crate::serve::store::Gap;

/// Who says it.
#[derive(Clone, Copy)]
pub(super) struct Said {
    /// Only what is wrong.
    pub quiet: bool,
}

impl Said {
    /// Says what is not wrong.
    pub(super) fn remark(self, text: &str) {
        if !self.quiet {
            eprintln!("unfreed: {text}");
        }
    }

    /// Says what became of the file of windows.
    pub(super) fn fit(self, fitted: Result<Option<(u64, u64)>>) {
        match fitted {
            Ok(None) => {}
            Ok(Some((before, after))) => self.remark(&format!(
                "the file of windows has {} now; it had {}",
                indicatif::HumanBytes(after),
                indicatif::HumanBytes(before)
            )),
            Err(error) => eprintln!(
                "unfreed: warning: the file of windows stays as large as it is: {error:#}"
            ),
        }
    }

    /// Says for how long nobody watched, and how far what is kept is ahead of the clock,
    /// milliseconds.
    pub(super) fn gap(self, gap: Option<Gap>, ahead: u64) {
        let Some(gap) = gap else {
            return;
        };
        let seconds = gap.to.saturating_sub(gap.from) / 1000;
        let time = match ahead >= 1000 {
            true => "a time that is not known".to_owned(),
            false => format!("{seconds} s"),
        };
        if gap.lost {
            eprintln!(
                "unfreed: warning: the tracer ended without a word: nobody watched for {time}, and what it saw after its last window is lost"
            );
        } else {
            self.remark(&format!("nobody watched for {time}"));
        }
        if ahead >= 1000 {
            eprintln!(
                "unfreed: warning: the clock is {} s behind what is kept: times of this run are ahead of it by as much, so that its windows come after those before",
                ahead / 1000
            );
        }
    }
}
