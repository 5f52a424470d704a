//! How a service is started: by itself, with a sampler in it, or under another's tracer.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{PATIENCE, time, wait_until};
use crate::bench::process::end;
use crate::shell::{self, is_root};

/// What a service is started by.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) enum Launch<'a> {
    /// By us.
    Plain,
    /// `unfreed run --sampler`, with the report that it writes and how it is told to.
    Sampler {
        unfreed: &'a Path,
        options: &'a [&'a OsStr],
    },
    /// heaptrack, with the file that it writes.
    Heaptrack { data: &'a Path },
}

impl Launch<'_> {
    /// The command that starts a program, as another user if we are root. It ends with us.
    pub(in crate::bench) fn command<A: AsRef<OsStr>>(
        &self,
        program: &[A],
        options: &[&str],
        user: Option<&str>,
    ) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        let add = |words: &mut Vec<OsString>, more: &[&str]| {
            words.extend(more.iter().map(OsString::from));
        };
        let rights = user.filter(|_| is_root()).map(|user| {
            let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
            ["setpriv".to_owned(), uid, gid, "--clear-groups".to_owned()]
        });
        let rights: Vec<&str> = rights.iter().flatten().map(String::as_str).collect();
        match self {
            Self::Plain => add(&mut words, &rights),
            Self::Sampler {
                unfreed,
                options: own,
            } => {
                words.push(unfreed.into());
                add(&mut words, &["run", "--quiet", "--as-root", "--sampler"]);
                add(&mut words, options);
                words.extend(own.iter().map(OsString::from));
                add(&mut words, &["--"]);
                add(&mut words, &rights);
            }
            Self::Heaptrack { data } => {
                add(&mut words, &rights);
                add(&mut words, &["heaptrack", "-o"]);
                words.push(data.into());
            }
        }
        words.extend(program.iter().map(OsString::from));
        let mut command = match self {
            Self::Sampler { .. } => shell::as_root("setpriv"),
            _ => Command::new("setpriv"),
        };
        command.args(["--pdeathsig", "TERM"]).args(words);
        command
    }
}

/// A service that we started, or had started.
pub(in crate::bench) struct Started {
    child: Child,
    /// The service's own process.
    pid: String,
    signal: &'static str,
}

impl Started {
    /// Waits until the program of this name runs in the child or a descendant; `signal`
    /// ends it.
    ///
    /// # Errors
    /// Fails if it does not come.
    pub(in crate::bench) fn find(child: Child, name: &str, signal: &'static str) -> Result<Self> {
        let root = child.id().to_string();
        let mut started = Self {
            child,
            pid: root.clone(),
            signal,
        };
        wait_until(&format!("{name} starts"), || named(&root, name).is_some())?;
        started.pid = named(&root, name).with_context(|| format!("{name} has ended"))?;
        Ok(started)
    }

    /// Starts a server, without input, whose output nobody reads.
    ///
    /// # Errors
    /// See [`find`](Self::find).
    pub(in crate::bench) fn server(
        command: &mut Command,
        name: &str,
        signal: &'static str,
    ) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| shell::cannot_run(command))?;
        Self::find(child, name, signal)
    }

    pub(in crate::bench) fn pid(&self) -> &str {
        &self.pid
    }

    pub(in crate::bench) fn root(&self) -> String {
        self.child.id().to_string()
    }

    /// Tells it a line.
    ///
    /// # Errors
    /// Fails if it has ended, or has no input.
    pub(in crate::bench) fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("it has no input")?;
        writeln!(input, "{line}").context("it does not hear")
    }

    /// Closes its input, at which some end.
    pub(in crate::bench) fn close(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until something is so, as long as it runs.
    pub(super) fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) -> Result<()> {
        let gone = || !Path::new(&format!("/proc/{}", self.pid)).exists();
        wait_until(what, || is_so() || gone())?;
        if !is_so() {
            bail!("it ended before: {what}");
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself, as some do with their input.
        let _ = send(&self.pid, self.signal);
        self.close();
        // Whoever started it ends with it.
        end(&mut self.child, PATIENCE);
        if time::ticks(&self.pid).is_some() {
            let _ = send(&self.pid, "KILL");
        }
    }
}

fn send(pid: &str, signal: &str) -> Result<()> {
    let mut kill = shell::as_root("kill");
    kill.args(["-s", signal, pid]).stderr(Stdio::null());
    kill.status().with_context(|| shell::cannot_run(&kill))?;
    Ok(())
}

/// The first of a process and its descendants whose name begins so.
fn named(root: &str, name: &str) -> Option<String> {
    let is_named = |pid: &String| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.starts_with(name))
    };
    time::descendants(root).into_iter().find(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_comes_last() {
        let (unfreed, data) = (Path::new("/unfreed"), Path::new("/data"));
        let line = |launch: Launch<'_>| {
            let command = launch.command(&["serve", "-x"], &["--follow"], None);
            let words = command.get_args().map(|word| word.to_string_lossy());
            words.collect::<Vec<_>>().join(" ")
        };
        assert!(line(Launch::Plain).ends_with("--pdeathsig TERM serve -x"));
        let options = [OsStr::new("-o"), OsStr::new("/report")];
        let sampler = Launch::Sampler {
            unfreed,
            options: &options,
        };
        assert!(
            line(sampler).ends_with(
                "/unfreed run --quiet --as-root --sampler --follow -o /report -- serve -x"
            )
        );
        let heaptrack = Launch::Heaptrack { data };
        assert!(line(heaptrack).ends_with("heaptrack -o /data serve -x"));
    }

    #[test]
    fn a_child_is_found_by_its_name_and_ended() {
        let mut command = Launch::Plain.command(&["sh", "-c", "sleep 600 & wait"], &[], None);
        let child = command.spawn().unwrap();
        let found = Started::find(child, "sleep", "TERM").unwrap();
        let (pid, root) = (found.pid().to_owned(), found.root());
        assert_ne!(pid, root);
        drop(found);
        assert!(time::ticks(&pid).is_none());
        assert!(!Path::new(&format!("/proc/{root}")).exists());
    }
}
