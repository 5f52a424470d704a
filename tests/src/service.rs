//! `unfreed serve` as a child process, and what it answers.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kernel::send_signal;
use crate::lines::Lines;
use crate::{binary, wait_until};

/// A service at work. It is killed with this value.
#[derive(Debug)]
pub struct Service {
    child: Child,
    stderr: Lines,
    address: String,
    token: String,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. It has to be an answer.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        ensure!(self.status == 200, "{}: {}", self.status, self.text());
        Ok(serde_json::from_slice(&self.body)?)
    }
}

impl Service {
    /// Starts it with these arguments, at a port of the system's choice and with its state in
    /// a folder; waits until it traces.
    ///
    /// # Errors
    /// It ended instead; its messages are in the error.
    pub fn start(state: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_at("127.0.0.1:0", state, arguments)
    }

    /// The same with a rule of a configuration, looked at often: windows of a second, and a
    /// budget that leaves nothing out.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn of_rule(state: &Path, rule: &str) -> Result<Self> {
        let config = state.join("serve.toml");
        let pace = "budget = \"500ms/s\"\nwindow = \"1s\"\nscan = \"200ms\"";
        fs::write(&config, format!("{pace}\n[[service]]\n{rule}\n"))?;
        Self::start(state, &["--config", &config.display().to_string()])
    }

    /// The same, at an address.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_at(listen: &str, state: &Path, arguments: &[&str]) -> Result<Self> {
        Self::run(
            Command::new(binary()?).args(["serve", "--listen", listen]),
            state,
            state,
            arguments,
        )
    }

    /// The same by another program, which is given the tracer's own as its next argument. The
    /// service has a folder under the name of `inside`.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_by(
        runner: &mut Command,
        inside: &Path,
        state: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        runner
            .arg(binary()?)
            .args(["serve", "--listen", "127.0.0.1:0"]);
        Self::run(runner, inside, state, arguments)
    }

    fn run(command: &mut Command, inside: &Path, state: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = command
            .arg("--state")
            .arg(inside)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stderr = Lines::of(child.stderr.take().context("no standard error")?);
        let line = stderr.wait_for("where it listens", |line| line.contains("listening at"));
        let address = line.and_then(|line| {
            let address = line.split("://").nth(1).context("no address")?;
            Ok(address.to_owned())
        });
        let address = match address {
            Ok(address) => address,
            Err(error) => {
                let _ended_before = child.kill();
                let _reaped_before = child.wait();
                return Err(error);
            }
        };
        let mut service = Self {
            child,
            stderr,
            address,
            token: fs::read_to_string(state.join("token"))?.trim().to_owned(),
        };
        service.hear("tracing ")?;
        Ok(service)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it answers: `ADDRESS:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits for a line on standard error with this in it.
    ///
    /// # Errors
    /// It ended instead.
    pub fn hear(&mut self, part: &str) -> Result<String> {
        self.stderr
            .wait_for(&format!("a line with {part:?}"), |line| line.contains(part))
    }

    /// Asks with the token.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn ask(&self, path: &str) -> Result<Answer> {
        ask(&self.address, path, Some(&self.token))
    }

    /// Has something done, with the token.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn order(&self, path: &str) -> Result<Answer> {
        exchange("POST", &self.address, path, Some(&self.token))
    }

    /// Asks with another token, or none.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn ask_with(&self, path: &str, token: Option<&str>) -> Result<Answer> {
        ask(&self.address, path, token)
    }

    /// The answer once it is what is waited for.
    ///
    /// # Errors
    /// It does not come to be.
    pub fn wait_for(&self, path: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_until(path, || {
            let answer = self.ask(path)?;
            match answer.status {
                200 => Ok(Some(answer.json()?).filter(|value| is_it(value))),
                404 => Ok(None),
                _ => answer.json().map(Some),
            }
        })
    }

    /// The last window of a service, once it is what is waited for.
    ///
    /// # Errors
    /// It does not come to be.
    pub fn wait_service(&self, name: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let find = |all: &Value| {
            let services = all["services"].as_array()?;
            services.iter().find(|it| it["name"] == name).cloned()
        };
        let all = self.wait_for("/api/services", |all| {
            find(all).is_some_and(|it| is_it(&it))
        })?;
        find(&all).context("the service is gone")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, number: i32) -> Result<()> {
        send_signal(self.child.id(), number)
    }

    /// Ends it as a service manager does.
    ///
    /// # Errors
    /// It does not end, or not as it should.
    pub fn stop(mut self) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        let status = wait_until("the service's end", || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The status files of its threads, by name.
    ///
    /// # Errors
    /// It is gone.
    pub fn threads(&self) -> Result<Vec<(String, String)>> {
        let folder = PathBuf::from(format!("/proc/{}/task", self.pid()));
        let mut threads = Vec::new();
        for thread in fs::read_dir(folder)? {
            let thread = thread?.path();
            let name = fs::read_to_string(thread.join("comm"))?;
            let status = fs::read_to_string(thread.join("status"))?;
            threads.push((name.trim().to_owned(), status));
        }
        Ok(threads)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

/// Asks for a path, on a connection of its own.
///
/// # Errors
/// Nobody answers.
pub fn ask(address: &str, path: &str, token: Option<&str>) -> Result<Answer> {
    exchange("GET", address, path, token)
}

fn exchange(method: &str, address: &str, path: &str, token: Option<&str>) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let authorization = token.map_or(String::new(), |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.context("the answer has no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    ensure!(!head.contains("chunked"), "{head}");
    Ok(Answer {
        status,
        body: answer.split_off(end + 4),
        head,
    })
}
