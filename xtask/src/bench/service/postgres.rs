//! PostgreSQL with all its backends, on a socket in a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Folder, Launch, Load, PATIENCE, Service, Started, time};
use crate::shell::{self, is_root};

/// The user that it runs as, since it will not run as root.
const USER: &str = "postgres";

/// One in so many transactions has its time noted.
const NOTED: u32 = 5;

pub(super) struct Postgres {
    started: Started,
    folder: Folder,
    /// Whether each transaction has a connection, and a backend, of its own.
    reconnects: bool,
}

impl Postgres {
    /// One whose clients connect anew for each transaction.
    pub(super) fn reconnecting(launch: &Launch<'_>) -> Result<Self> {
        Ok(Self {
            reconnects: true,
            ..Self::start(launch)?
        })
    }

    pub(super) fn start(launch: &Launch<'_>) -> Result<Self> {
        let folder = Folder::new("postgres")?;
        let path = folder.path();
        if is_root() {
            shell::run(Command::new("chown").arg(format!("{USER}:")).arg(path))?;
        }
        let data = path.join("data");
        let mut initdb = tool("initdb")?;
        initdb.args(["--auth", "trust", "--no-sync", "-U", "bench", "-D"]);
        shell::run(initdb.arg(&data).stdout(Stdio::null()))?;
        let program = [
            program("postgres")?.into_os_string(),
            "-c".into(),
            "listen_addresses=".into(),
            "-c".into(),
            "autovacuum=off".into(),
            "-k".into(),
            path.into(),
            "-D".into(),
            data.into(),
        ];
        let mut command = launch.command(&program, &["--follow"], Some(USER));
        command.current_dir(path);
        let started = Started::server(&mut command, "postgres", "INT")?;
        let socket = path.join(".s.PGSQL.5432");
        started.wait_until("PostgreSQL has its socket", || socket.exists())?;
        let mut service = Self {
            started,
            folder,
            reconnects: false,
        };
        service.fill()?;
        Ok(service)
    }

    /// Tables for pgbench. The server may not take connections yet.
    fn fill(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let mut pgbench = self.pgbench()?;
            pgbench.stdout(Stdio::null()).stderr(Stdio::null());
            let made = shell::run(pgbench.args(["-i", "-q", "postgres"]));
            if made.is_ok() || begin.elapsed() > PATIENCE {
                return made;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn pgbench(&self) -> Result<Command> {
        let mut command = tool("pgbench")?;
        command.args(["-U", "bench", "-h"]).arg(self.folder.path());
        command.current_dir(self.folder.path());
        Ok(command)
    }

    /// The 99th percentile of the noted times, seconds, whose notes are then removed.
    fn percentile(&self) -> Result<Option<f64>> {
        let mut times = Vec::new();
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("times.") {
                times.extend(noted(&fs::read_to_string(&path)?));
                fs::remove_file(&path)?;
            }
        }
        times.sort_unstable();
        let microseconds = times.get(times.len() * 99 / 100);
        Ok(microseconds.map(|time| f64::from(*time) / 1e6))
    }
}

impl Service for Postgres {
    fn pid(&self) -> String {
        self.started.pid().to_owned()
    }

    fn root(&self) -> String {
        self.started.root()
    }

    fn options(&self) -> &[&'static str] {
        &["--follow"]
    }

    fn load(&mut self, time: Duration) -> Result<Load> {
        self.bench(time, &[])
    }

    fn steady_load(&mut self, time: Duration, rate: f64) -> Result<Load> {
        self.bench(time, &["-R", &format!("{rate:.0}")])
    }
}

impl Postgres {
    fn bench(&mut self, time: Duration, options: &[&str]) -> Result<Load> {
        let seconds = time.as_secs().max(1).to_string();
        let rate = format!("--sampling-rate={}", 1.0 / f64::from(NOTED));
        let mut pgbench = self.pgbench()?;
        pgbench.args(["-n", "-S", "-c", "2", "-T", &seconds]);
        pgbench.args(["-l", "--log-prefix=times", &rate]);
        if self.reconnects {
            pgbench.arg("-C");
        }
        pgbench.args(options).arg("postgres");
        let said = shell::capture(pgbench.stderr(Stdio::null()))?;
        let (operations, rate) = parse(&said).with_context(|| format!("pgbench said {said}"))?;
        wait_until_alone(&self.pid())?;
        Ok(Load {
            operations,
            rate,
            p99: self.percentile()?,
        })
    }
}

/// Transactions, and transactions a second.
fn parse(said: &str) -> Option<(u64, f64)> {
    let after = |key: &str| said.lines().find_map(|line| line.strip_prefix(key));
    let operations = after("number of transactions actually processed: ")?;
    let rate = after("tps = ")?.split(' ').next()?;
    Some((operations.trim().parse().ok()?, rate.parse().ok()?))
}

/// Microseconds of each transaction of a log of pgbench's: the third column.
fn noted(log: &str) -> Vec<u32> {
    let time = |line: &str| line.split(' ').nth(2)?.parse().ok();
    log.lines().filter_map(time).collect()
}

/// One of its programs, to run as its user.
fn tool(name: &str) -> Result<Command> {
    let mut command = Launch::Plain.command(&[program(name)?], &[], Some(USER));
    command.current_dir("/");
    Ok(command)
}

/// Where the newest version has a program.
fn program(name: &str) -> Result<PathBuf> {
    let newest = fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed")?
        .filter_map(|version| Some(version.ok()?.path().join("bin").join(name)))
        .filter(|program| program.is_file())
        .max();
    newest.with_context(|| format!("PostgreSQL has no {name}"))
}

/// Waits until no backend of a client is there: its time is its parent's then.
fn wait_until_alone(pid: &str) -> Result<()> {
    let begin = Instant::now();
    while time::children(pid)?.iter().any(|child| is_backend(child)) {
        if begin.elapsed() > PATIENCE {
            bail!("backends of PostgreSQL stay");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_backend(pid: &str) -> bool {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).contains("bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_read() {
        let said = "number of transactions actually processed: 5000\nlatency average = 0.1 ms\n\
                    tps = 12345.678 (without initial connection time)\n";
        assert_eq!(parse(said), Some((5000, 12_345.678)));
        assert_eq!(parse("no"), None);
        assert_eq!(noted("0 1 87 0 17 5\n1 1 90 0 17 6\n"), [87, 90]);
    }
}
