//! Programs with a steady load, whose processor time is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::process::end;
use super::server::Server;
use super::target::Target;
use crate::shell::{self, is_root};
use crate::targets;

/// How long a service may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ticks of the clock of `/proc/PID/stat` in a second (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A program that does operations when it is asked to.
pub(super) trait Service {
    /// The process to trace.
    fn pid(&self) -> String;
    /// Options for the tracer.
    fn options(&self) -> &[&'static str] {
        &[]
    }
    /// Operations of one measurement.
    fn operations(&self) -> u64;
    /// Operations before the first one.
    fn warm_up(&self) -> u64 {
        self.operations() / 10
    }
    /// Has it do so many, and says how many it did.
    fn work(&mut self, operations: u64) -> Result<u64>;
    /// Processor time of all of its processes until now, seconds.
    fn processor_time(&self) -> Result<f64> {
        family_time(&self.pid())
    }
}

type Start = fn() -> Result<Box<dyn Service>>;

/// All, with names for the table.
pub(super) const ALL: [(&str, Start); 6] = [
    ("a pair of malloc and free", || Pairs::start(0)),
    ("the same from 60 calls further down", || Pairs::start(60)),
    ("the same with results at return instructions", || {
        Pairs::start_with(0, &["--returns", "instructions"])
    }),
    ("a redis request (`set`, its own jemalloc)", Redis::start),
    ("a PostgreSQL transaction (`pgbench -S`)", Postgres::start),
    ("a request of the Java server above", Java::start),
];

/// The loop of `pairs.c`.
struct Pairs {
    target: Target,
    depth: usize,
    options: &'static [&'static str],
}

impl Pairs {
    fn start(depth: usize) -> Result<Box<dyn Service>> {
        Self::start_with(depth, &[])
    }

    fn start_with(depth: usize, options: &'static [&'static str]) -> Result<Box<dyn Service>> {
        let program = targets::build_one("c/pairs.c")?;
        Ok(Box::new(Self {
            target: Target::start(Command::new(program))?,
            depth,
            options,
        }))
    }
}

impl Service for Pairs {
    fn pid(&self) -> String {
        self.target.pid().to_owned()
    }

    fn options(&self) -> &[&'static str] {
        self.options
    }

    fn operations(&self) -> u64 {
        300_000
    }

    fn work(&mut self, operations: u64) -> Result<u64> {
        self.target.time(operations, self.depth)?;
        Ok(operations)
    }
}

/// redis at full load, on a socket in a folder of its own.
struct Redis {
    child: Child,
    folder: PathBuf,
}

impl Redis {
    fn start() -> Result<Box<dyn Service>> {
        let folder = folder("redis")?;
        let mut command = Command::new("redis-server");
        command
            .current_dir(&folder)
            .args(["--port", "0", "--unixsocket", "socket", "--save", ""])
            .args(["--appendonly", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let redis = Self { child, folder };
        wait_for(&redis.folder.join("socket"))?;
        Ok(Box::new(redis))
    }
}

impl Service for Redis {
    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn operations(&self) -> u64 {
        100_000
    }

    fn work(&mut self, operations: u64) -> Result<u64> {
        let mut command = Command::new("redis-benchmark");
        command
            .current_dir(&self.folder)
            .args(["-s", "socket", "-q", "-t", "set", "-r", "10000", "-d", "64"])
            .args(["-n", &operations.to_string()])
            .stdout(Stdio::null());
        shell::run(&mut command)?;
        Ok(operations)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        end(&mut self.child, PATIENCE);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// PostgreSQL with all its backends, on a socket in a folder of its own.
struct Postgres {
    child: Child,
    folder: PathBuf,
}

impl Postgres {
    fn start() -> Result<Box<dyn Service>> {
        let folder = folder("postgres")?;
        if is_root() {
            shell::run(Command::new("chown").arg("postgres:").arg(&folder))?;
        }
        let data = folder.join("data");
        shell::run(
            postgres("initdb")?
                .args(["--auth", "trust", "--no-sync", "-U", "bench", "-D"])
                .arg(&data)
                .stdout(Stdio::null()),
        )?;
        let mut command = postgres("postgres")?;
        command
            .args(["-c", "listen_addresses=", "-c", "autovacuum=off", "-k"])
            .arg(&folder)
            .arg("-D")
            .arg(&data)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let mut service = Self { child, folder };
        wait_for(&service.folder.join(".s.PGSQL.5432"))?;
        service.fill()?;
        Ok(Box::new(service))
    }

    /// Tables for pgbench. The server may not take connections yet.
    fn fill(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let made = shell::run(self.pgbench()?.args(["-i", "-q", "postgres"]));
            if made.is_ok() || begin.elapsed() > PATIENCE {
                return made;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn pgbench(&self) -> Result<Command> {
        let mut command = postgres("pgbench")?;
        command.args(["-U", "bench", "-h"]).arg(&self.folder);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }
}

impl Service for Postgres {
    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn options(&self) -> &[&'static str] {
        &["--follow"]
    }

    fn operations(&self) -> u64 {
        40_000
    }

    fn work(&mut self, operations: u64) -> Result<u64> {
        let each = (operations / 2).to_string();
        shell::run(
            self.pgbench()?
                .args(["-n", "-S", "-c", "2", "-t", &each, "postgres"]),
        )?;
        wait_until_alone(&self.pid())?;
        Ok(operations / 2 * 2)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = Command::new("kill");
        // Its fast way to stop.
        let _ = stop.args(["-INT", &self.pid()]).status();
        end(&mut self.child, PATIENCE);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The Java server of the part `java`.
struct Java(Server);

impl Java {
    fn start() -> Result<Box<dyn Service>> {
        crate::java::build()?;
        Ok(Box::new(Self(Server::start()?)))
    }
}

impl Service for Java {
    fn pid(&self) -> String {
        self.0.pid().to_owned()
    }

    fn operations(&self) -> u64 {
        20_000
    }

    fn warm_up(&self) -> u64 {
        60_000
    }

    fn work(&mut self, operations: u64) -> Result<u64> {
        self.0.answer(operations)
    }
}

/// A program of PostgreSQL's, which does not run as root.
fn postgres(name: &str) -> Result<Command> {
    let newest = fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed")?
        .filter_map(|version| Some(version.ok()?.path().join("bin").join(name)))
        .filter(|program| program.is_file())
        .max();
    let program = newest.with_context(|| format!("PostgreSQL has no {name}"))?;
    if !is_root() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program)
        .current_dir("/");
    Ok(command)
}

/// A new folder for a service.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("unfreed-bench-{name}-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn wait_for(file: &Path) -> Result<()> {
    let begin = Instant::now();
    while !file.exists() {
        ensure!(
            begin.elapsed() < PATIENCE,
            "{} does not come",
            file.display()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until no backend of a client is there: its time is its parent's then.
fn wait_until_alone(pid: &str) -> Result<()> {
    let begin = Instant::now();
    while children(pid)?.iter().any(|child| is_backend(child)) {
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

fn children(pid: &str) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Processor time of a process, of its children that it has waited for, and of those
/// that run; seconds.
fn family_time(pid: &str) -> Result<f64> {
    let own = ticks(pid).with_context(|| format!("process {pid} is gone"))?;
    let children = children(pid)?;
    let theirs = children
        .iter()
        .filter_map(|child| ticks(child))
        .sum::<u64>();
    Ok((own + theirs) as f64 / TICKS)
}

/// `utime`, `stime`, `cutime` and `cstime` of `/proc/PID/stat` (proc(5)).
fn ticks(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields = fields.split(' ').skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_read() {
        let pid = std::process::id().to_string();
        let before = family_time(&pid).unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) && family_time(&pid).unwrap() <= before {}
        assert!(family_time(&pid).unwrap() > before);
        assert!(family_time("0").is_err());
    }
}
