//! nginx, with requests whose bodies have not ended.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::load::{Load, Running};

pub(super) const WORDS: &str =
    "200 connections, each with a request and 200 KiB of its body, of which the end is missing";

/// Connections.
const CONNECTIONS: usize = 200;
/// What is sent of a body, bytes.
const SENT: usize = 200 << 10;
/// What is announced, bytes.
const ANNOUNCED: usize = SENT + 1;

struct Nginx {
    server: Running,
    socket: PathBuf,
    connections: Vec<UnixStream>,
}

pub(super) fn start(folder: &Path) -> Result<Box<dyn Load>> {
    let socket = folder.join("nginx.sock");
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration(folder, &socket))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    command.arg("-e").arg(folder.join("early.log"));
    let mut server = Running::server(&mut command, "QUIT")?;
    server.wait_until("it listens", || UnixStream::connect(&socket).is_ok())?;
    Ok(Box::new(Nginx {
        server,
        socket,
        connections: Vec::new(),
    }))
}

/// One process, which keeps bodies in memory. Nobody answers behind it.
fn configuration(folder: &Path, socket: &Path) -> String {
    let (folder, socket) = (folder.display(), socket.display());
    format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_body_buffer_size 256k; client_max_body_size 10m; client_body_timeout 600s;
  server {{ listen unix:{socket}; location / {{ proxy_pass http://127.0.0.1:9; }} }}
}}
"
    )
}

impl Load for Nginx {
    fn pid(&self) -> String {
        self.server.pid()
    }

    fn work(&mut self) -> Result<()> {
        let body = vec![b'x'; SENT];
        for _ in 0..CONNECTIONS {
            let mut connection = UnixStream::connect(&self.socket)?;
            write!(
                connection,
                "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {ANNOUNCED}\r\n\r\n"
            )?;
            connection.write_all(&body)?;
            self.connections.push(connection);
        }
        Ok(())
    }
}
