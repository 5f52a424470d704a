//! Web servers under wrk: a python3 and a node program of ours, and nginx.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use super::{Folder, Launch, Load, Service, Started, wrk};
use crate::bench::PYTHON;

pub(super) struct Web {
    started: Started,
    port: u16,
    warm_up: Duration,
    /// What it serves or writes to.
    _folder: Option<Folder>,
}

impl Web {
    pub(super) fn python(launch: &Launch<'_>) -> Result<Self> {
        let warm_up = Duration::from_secs(1);
        Self::script(launch, PYTHON, "python/server.py", warm_up)
    }

    /// Its code is compiled while it warms up.
    pub(super) fn node(launch: &Launch<'_>) -> Result<Self> {
        Self::script(launch, "node", "node/server.js", Duration::from_secs(2))
    }

    fn script(
        launch: &Launch<'_>,
        interpreter: &str,
        script: &str,
        warm_up: Duration,
    ) -> Result<Self> {
        let port = free_port()?;
        let file = workspace().join("tests/targets").join(script);
        let program = [
            interpreter.into(),
            file.into_os_string(),
            port.to_string().into(),
        ];
        let mut command = launch.command(&program, &[], None);
        let name = Path::new(interpreter).file_name().unwrap_or_default();
        let started = Started::server(&mut command, &name.to_string_lossy(), "TERM")?;
        let web = Self {
            started,
            port,
            warm_up,
            _folder: None,
        };
        web.listening()
    }

    /// One process, which serves a file of 1 KiB.
    pub(super) fn nginx(launch: &Launch<'_>) -> Result<Self> {
        Self::nginx_of(launch, "master_process off;")
    }

    /// The same by processes that its first one has forked before there were requests.
    pub(super) fn forked(launch: &Launch<'_>) -> Result<Self> {
        Self::nginx_of(launch, "worker_processes 4;")
    }

    fn nginx_of(launch: &Launch<'_>, processes: &str) -> Result<Self> {
        let folder = Folder::new("nginx")?;
        let (path, port) = (folder.path(), free_port()?);
        let file = path.join("nginx.conf");
        fs::write(&file, configuration(path, port, processes))
            .with_context(|| format!("cannot write {}", file.display()))?;
        fs::write(path.join("page"), "0123456789abcde\n".repeat(64))?;
        let log = path.join("early.log");
        let words = ["nginx", "-p"].map(Into::into);
        let rest = [
            path.into(),
            "-c".into(),
            file.into(),
            "-e".into(),
            log.into(),
        ];
        let program: Vec<std::ffi::OsString> = words.into_iter().chain(rest).collect();
        let mut command = launch.command(&program, &[], None);
        let started = Started::server(&mut command, "nginx", "TERM")?;
        let web = Self {
            started,
            port,
            warm_up: Duration::from_secs(1),
            _folder: Some(folder),
        };
        web.listening()
    }

    fn page(&self) -> String {
        format!("http://127.0.0.1:{}/page", self.port)
    }

    fn listening(self) -> Result<Self> {
        let address = ("127.0.0.1", self.port);
        self.started
            .wait_until("it listens", || TcpStream::connect(address).is_ok())?;
        Ok(self)
    }
}

impl Service for Web {
    fn pid(&self) -> String {
        self.started.pid().to_owned()
    }

    fn root(&self) -> String {
        self.started.root()
    }

    fn warm_up(&self) -> Duration {
        self.warm_up
    }

    fn load(&mut self, time: Duration) -> Result<Load> {
        wrk::load(&self.page(), time)
    }

    fn steady_load(&mut self, time: Duration, rate: f64) -> Result<Load> {
        wrk::steady_load(&self.page(), time, rate)
    }
}

/// A port that nobody listens at.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

fn configuration(folder: &Path, port: u16, processes: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off; {processes} pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"
    )
}
