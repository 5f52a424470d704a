//! redis at full load, on a socket in a folder of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Folder, Launch, Load, Service, Started, whole};
use crate::shell;

/// Requests that are asked for first.
const FIRST: u64 = 10_000;

/// A part of the time that is too short to be asked for.
const LEAST: f64 = 0.1;

pub(super) struct Redis {
    started: Started,
    folder: Folder,
}

impl Redis {
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self> {
        let folder = Folder::new("redis")?;
        let program = ["redis-server", "--port", "0", "--unixsocket", "socket"];
        let options = ["--save", "", "--appendonly", "no"];
        let mut command = launch.command(&[&program[..], &options].concat(), &[], None);
        command.current_dir(folder.path());
        let started = Started::server(&mut command, "redis-server", "TERM")?;
        let socket = folder.path().join("socket");
        started.wait_until("redis has its socket", || socket.exists())?;
        Ok(Self { started, folder })
    }

    fn benchmark(&self, requests: u64) -> Result<Load> {
        let mut command = Command::new("redis-benchmark");
        command
            .current_dir(self.folder.path())
            .args(["-s", "socket", "--csv", "-t", "set", "-r", "10000"])
            .args(["-d", "64", "-n", &requests.to_string()]);
        let said = shell::capture(&mut command)?;
        let (rate, p99) = parse(&said).with_context(|| format!("redis-benchmark said {said}"))?;
        Ok(Load {
            operations: requests,
            rate,
            p99: Some(p99),
        })
    }
}

impl Service for Redis {
    fn pid(&self) -> String {
        self.started.pid().to_owned()
    }

    fn root(&self) -> String {
        self.started.root()
    }

    /// As many at once as there would be in the time that is left: a tracer may come and go
    /// meanwhile. The percentile is that of the most that were asked for at once.
    fn load(&mut self, time: Duration) -> Result<Load> {
        let (begin, time) = (Instant::now(), time.as_secs_f64());
        let mut longest = self.benchmark(FIRST)?;
        let (mut operations, mut seconds) = (FIRST, FIRST as f64 / longest.rate);
        let mut last = longest.rate;
        loop {
            let left = time - begin.elapsed().as_secs_f64();
            if left < LEAST * time {
                break;
            }
            let load = self.benchmark(whole(last * left))?;
            operations += load.operations;
            seconds += load.operations as f64 / load.rate;
            last = load.rate;
            if load.operations >= longest.operations {
                longest = load;
            }
        }
        Ok(Load {
            operations,
            rate: operations as f64 / seconds,
            p99: longest.p99,
        })
    }
}

/// Requests a second, and their 99th percentile in seconds: the columns `rps` and
/// `p99_latency_ms`.
fn parse(said: &str) -> Option<(f64, f64)> {
    let mut lines = said.lines();
    let names = lines.find(|line| line.contains("\"rps\""))?;
    let values = lines.next()?;
    let value = |name: &str| {
        let index = names
            .split(',')
            .position(|it| it.trim_matches('"') == name)?;
        values.split(',').nth(index)?.trim_matches('"').parse().ok()
    };
    let p99: f64 = value("p99_latency_ms")?;
    Some((value("rps")?, p99 / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_percentile_are_read() {
        let said = "\"test\",\"rps\",\"avg_latency_ms\",\"p99_latency_ms\"\n\
                    \"SET\",\"125000.50\",\"0.21\",\"0.375\"\n";
        assert_eq!(parse(said), Some((125_000.5, 0.000_375)));
        assert_eq!(parse("Error"), None);
    }
}
