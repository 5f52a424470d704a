//! redis, filled with keys.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::load::{Load, Running};
use crate::shell;

pub(super) const WORDS: &str = "`redis-benchmark -t set -n 150000 -r 1000000 -d 300`";

struct Redis {
    server: Running,
    socket: PathBuf,
}

pub(super) fn start(folder: &Path) -> Result<Box<dyn Load>> {
    let socket = folder.join("redis.sock");
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
    command.arg("--unixsocket").arg(&socket);
    command.arg("--dir").arg(folder);
    let mut server = Running::server(&mut command, "TERM")?;
    server.wait_until("it listens", || UnixStream::connect(&socket).is_ok())?;
    Ok(Box::new(Redis { server, socket }))
}

impl Load for Redis {
    fn pid(&self) -> String {
        self.server.pid()
    }

    fn work(&mut self) -> Result<()> {
        let mut benchmark = Command::new("redis-benchmark");
        benchmark.arg("-s").arg(&self.socket).arg("-q");
        benchmark.args(["-t", "set", "-n", "150000", "-r", "1000000", "-d", "300"]);
        shell::run(benchmark.stdout(Stdio::null()))
    }
}
