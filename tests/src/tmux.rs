//! A program on a terminal that is real to it: tmux holds it, presses keys, and tells what is
//! shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::kernel::send_signal;
use crate::{binary, wait_until};

/// Keeps what a program has shown last, and its status, after its end.
const SETTINGS: &str = "set -g remain-on-exit on\nset -g status off\nset -g escape-time 0\n";

/// A terminal with a program in it. Both end with this value.
#[derive(Debug)]
pub struct Tmux(TempDir);

impl Tmux {
    /// `unfreed ARGUMENTS` on a terminal of so many columns and lines, in a folder of its own.
    /// When it has ended, its status and the terminal's modes are shown.
    ///
    /// # Errors
    /// tmux cannot be started.
    pub fn start(arguments: &str, size: (u16, u16)) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = binary()?;
        // That it has ended takes the last line, and the first one scrolls away.
        let inside = format!(
            "{} {arguments}; code=$?; echo; echo; echo status=$code; stty -a | grep -o -w -E -e '-?(icanon|echo)'",
            program.display()
        );
        fs::write(folder.path().join("settings"), SETTINGS)?;
        let tmux = Self(folder);
        let (width, height) = (size.0.to_string(), size.1.to_string());
        tmux.run(&[
            "new-session",
            "-d",
            "-s",
            "it",
            "-x",
            &width,
            "-y",
            &height,
            "-c",
            &tmux.folder().display().to_string(),
            "sh",
            "-c",
            &inside,
        ])?;
        Ok(tmux)
    }

    /// Where the program runs.
    pub fn folder(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Presses keys, as tmux calls them; a text is typed.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        let mut arguments = vec!["send-keys", "-t", "it"];
        arguments.extend(keys);
        self.run(&arguments).map(drop)
    }

    /// Makes the terminal larger or smaller.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, (width, height): (u16, u16)) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.run(&["resize-window", "-t", "it", "-x", &width, "-y", &height])
            .map(drop)
    }

    /// What is shown.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p", "-t", "it"])
    }

    /// What is shown once all of this is in it.
    ///
    /// # Errors
    /// It does not come to be; what is shown then is in the error.
    pub fn wait(&self, parts: &[&str]) -> Result<String> {
        self.wait_for(&format!("{parts:?}"), |shown| {
            parts.iter().all(|part| shown.contains(part))
        })
    }

    /// What is shown once it is what is waited for.
    ///
    /// # Errors
    /// See [`Self::wait`].
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&str) -> bool) -> Result<String> {
        let shown = wait_until(what, || {
            // Each question is a process.
            sleep(Duration::from_millis(50));
            Ok(Some(self.screen()?).filter(|it| is_it(it)))
        });
        shown.with_context(|| self.screen().unwrap_or_default())
    }

    /// Waits until the program has ended with this status, and the terminal is as it was.
    ///
    /// # Errors
    /// It is not.
    pub fn has_ended_with(&self, status: u8) -> Result<String> {
        let shown = self.wait(&["status="])?;
        ensure!(shown.contains(&format!("status={status}\n")), "{shown}");
        let shown = self.wait_for("its modes", |shown| shown.contains("echo\n"))?;
        ensure!(
            !shown.contains("-icanon") && !shown.contains("-echo\n"),
            "{shown}"
        );
        let alternate = self.tell("#{alternate_on}")?;
        ensure!(alternate == "0", "the other screen is still shown");
        Ok(shown)
    }

    /// The process id of the program.
    ///
    /// # Errors
    /// It is gone.
    pub fn pid(&self) -> Result<u32> {
        let shell = self.tell("#{pane_pid}")?;
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let child = children.split_whitespace().next();
        Ok(child.context("it has ended")?.parse()?)
    }

    /// Kills the terminal, by SIGKILL.
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&self) -> Result<()> {
        send_signal(self.tell("#{pid}")?.parse()?, libc::SIGKILL)
    }

    fn tell(&self, format: &str) -> Result<String> {
        let told = self.run(&["display-message", "-p", "-t", "it", format])?;
        Ok(told.trim().to_owned())
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = command(self.0.path()).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// tmux with a server of its own.
fn command(folder: &Path) -> Command {
    let mut command = Command::new("tmux");
    command
        .arg("-u")
        .arg("-S")
        .arg(folder.join("socket"))
        .arg("-f")
        .arg(folder.join("settings"))
        .env("LC_ALL", "C.UTF-8")
        .env("TERM", "xterm-256color")
        .env_remove("TMUX")
        .env_remove("NO_COLOR");
    command
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ended_before = self.run(&["kill-server"]);
    }
}
