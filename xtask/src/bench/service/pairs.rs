//! The loop of `pairs.c`.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Launch, Load, Service, Target};
use crate::targets;

/// Pairs that are asked for first, and how long it takes to do what is asked for then.
const FIRST: u64 = 1000;
const EACH: Duration = Duration::from_millis(50);

pub(super) struct Pairs {
    target: Target,
    depth: usize,
    options: &'static [&'static str],
}

impl Pairs {
    pub(super) fn start(
        launch: &Launch<'_>,
        depth: usize,
        options: &'static [&'static str],
    ) -> Result<Self> {
        let program = targets::build_one("c/pairs.c")?;
        Ok(Self {
            target: Target::start(launch.command(&[program], &[], None))?,
            depth,
            options,
        })
    }
}

impl Service for Pairs {
    fn pid(&self) -> String {
        self.target.pid().to_owned()
    }

    fn root(&self) -> String {
        self.target.root()
    }

    fn options(&self) -> &[&'static str] {
        self.options
    }

    /// A little at a time, since a tracer may come and go meanwhile.
    fn load(&mut self, time: Duration) -> Result<Load> {
        let begin = Instant::now();
        let (mut operations, mut next) = (0, FIRST);
        while begin.elapsed() < time {
            let each = self.target.time(next, self.depth)?;
            operations += next;
            next = super::whole(EACH.as_secs_f64() * 1e9 / each.max(1.0));
        }
        Ok(Load {
            operations,
            rate: operations as f64 / begin.elapsed().as_secs_f64(),
            p99: None,
        })
    }
}
