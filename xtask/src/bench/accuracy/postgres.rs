//! PostgreSQL, with connections that are made during the run and stay.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::load::{Load, Running, family};
use crate::shell;

pub(super) const WORDS: &str =
    "`pgbench -i -s 5` before; 4 clients, each with 2,000 queries, which stay connected";

/// Where Debian has the versions.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user that it runs as, since it will not run as root.
const USER: &str = "postgres";
/// Clients, and queries of each.
const CLIENTS: usize = 4;
const QUERIES: usize = 2000;

struct Postgres {
    server: Running,
    clients: Option<Running>,
    home: PathBuf,
    script: PathBuf,
}

pub(super) fn start(_folder: &Path) -> Result<Box<dyn Load>> {
    // The user may not be able to reach the workspace.
    let home = std::env::temp_dir().join(format!("unfreed-postgres-{}", std::process::id()));
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    if shell::is_root() {
        shell::run(Command::new("chown").arg(USER).arg(&home))?;
    }
    let script = home.join("queries.sql");
    fs::write(&script, queries()).with_context(|| format!("cannot write {}", script.display()))?;
    let data = home.join("data");
    shell::run(tool("initdb")?.args(["--no-sync", "-D"]).arg(&data))?;
    let mut command = tool("postgres")?;
    command.arg("-D").arg(&data).arg("-k").arg(&home);
    command.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
    let mut server = Running::server(&mut command, "INT")?;
    let ready = || {
        tool("pg_isready").is_ok_and(|mut ready| {
            let output = ready.arg("-q").arg("-h").arg(&home).status();
            output.is_ok_and(|status| status.success())
        })
    };
    server.wait_until("it answers", ready)?;
    shell::run(pgbench(&home)?.args(["-q", "-i", "-s", "5"]))?;
    Ok(Box::new(Postgres {
        server,
        clients: None,
        home,
        script,
    }))
}

/// What each client does: queries, and then nothing for longer than we look.
fn queries() -> String {
    let mut text = String::new();
    for _ in 0..QUERIES {
        text.push_str(
            "\\set aid random(1, 500000)\n\
             SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n",
        );
    }
    let _ = writeln!(text, "\\sleep 600 s");
    text
}

/// One of its programs, as its user.
fn tool(name: &str) -> Result<Command> {
    let versions = fs::read_dir(VERSIONS).with_context(|| format!("cannot read {VERSIONS}"))?;
    let mut versions: Vec<_> = versions.flatten().map(|entry| entry.path()).collect();
    versions.sort();
    let newest = versions.pop().context("there is no PostgreSQL")?;
    let program = newest.join("bin").join(name);
    ensure!(program.is_file(), "there is no {}", program.display());
    if !shell::is_root() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={USER}"));
    command.arg(format!("--regid={USER}"));
    command.arg("--clear-groups").arg(program);
    Ok(command)
}

fn pgbench(home: &Path) -> Result<Command> {
    let mut command = tool("pgbench")?;
    command.arg("-h").arg(home);
    command.current_dir(home).arg("postgres");
    Ok(command)
}

impl Load for Postgres {
    fn pid(&self) -> String {
        self.server.pid()
    }

    fn options(&self) -> &'static [&'static str] {
        &["--follow"]
    }

    fn work(&mut self) -> Result<()> {
        let others = family(&self.pid()).len();
        let mut command = pgbench(&self.home)?;
        let clients = CLIENTS.to_string();
        command.args(["-n", "-t", "1", "-c", &clients, "-f"]);
        command.arg(&self.script);
        self.clients = Some(Running::server(&mut command, "TERM")?);
        let pid = self.pid();
        let connected = || family(&pid).len() >= others + CLIENTS;
        self.server.wait_until("clients are connected", connected)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.clients = None;
        let stopped = tool("pg_ctl").and_then(|mut command| {
            shell::run(
                command
                    .args(["stop", "-s", "-m", "immediate", "-D"])
                    .arg(self.home.join("data")),
            )
        });
        if let Err(error) = stopped.and_then(|()| Ok(fs::remove_dir_all(&self.home)?)) {
            shell::say(format!("{}: {error:#}", self.home.display()));
        }
    }
}
