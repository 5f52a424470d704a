//! wrk: connections that stay, each with one request after the other.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Folder, Load};
use crate::shell;

/// Connections.
const CONNECTIONS: u32 = 8;

/// Asks for a page as often as it is answered.
pub(super) fn load(url: &str, time: Duration) -> Result<Load> {
    run(command(time).arg(url))
}

/// Asks for a page about so many times a second, by a pause before each request. Pauses are
/// whole milliseconds, and of random length, so that connections do not keep step.
pub(super) fn steady_load(url: &str, time: Duration, rate: f64) -> Result<Load> {
    let pause = f64::from(CONNECTIONS) * 1e3 / rate;
    let text = format!(
        "function delay() return math.floor({pause:.3} * (0.5 + math.random()) + math.random()) end\n"
    );
    let folder = Folder::new("wrk")?;
    let script = folder.path().join("pauses.lua");
    fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
    run(command(time).arg("-s").arg(&script).arg(url))
}

fn command(time: Duration) -> Command {
    let mut wrk = Command::new("wrk");
    let seconds = format!("{}s", time.as_secs().max(1));
    wrk.args(["-t1", "--latency", "-d", &seconds, "-c"]);
    wrk.arg(CONNECTIONS.to_string());
    wrk
}

fn run(wrk: &mut Command) -> Result<Load> {
    let said = shell::capture(wrk)?;
    let failed = ["Non-2xx", "Socket errors"];
    ensure!(!failed.iter().any(|it| said.contains(it)), "wrk: {said}");
    parse(&said).with_context(|| format!("wrk said {said}"))
}

fn parse(said: &str) -> Option<Load> {
    let line = |key: &str| said.lines().find_map(|line| line.trim().strip_prefix(key));
    let requests = said.lines().find(|line| line.contains(" requests in "))?;
    Some(Load {
        operations: requests.trim().split(' ').next()?.parse().ok()?,
        rate: line("Requests/sec:")?.trim().parse().ok()?,
        p99: Some(seconds(line("99%")?.trim())?),
    })
}

/// `830.00us`, `1.20ms`, `2.00s` or `1.00m`.
fn seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(unit, length)| Some((text.strip_suffix(unit)?, length)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let said = "Running 2s test @ http://127.0.0.1:1/\n  Latency Distribution\n\
                    \x20    50%  100.00us\n     99%    1.50ms\n  41234 requests in 2.00s, 9.00MB read\n\
                    Requests/sec:  20617.00\nTransfer/sec:      4.50MB\n";
        let load = parse(said).unwrap();
        assert_eq!((load.operations, load.p99), (41_234, Some(0.0015)));
        assert_eq!(load.rate.to_bits(), 20_617.0f64.to_bits());
        assert_eq!(seconds("2.00s"), Some(2.0));
        assert_eq!(seconds("2.00"), None);
    }
}
