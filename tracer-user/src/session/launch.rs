//! Starting a program that waits until its probes are in place.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};

use super::preload::{Preload, VARIABLE};
use crate::attach::allocator::{self, Allocator, Declared};
use crate::privilege::program::Rights;
use crate::process::file::{ModuleFile, ModuleFiles};

/// Scripts that are interpreters of scripts, at most; as the kernel does it.
const MAX_INTERPRETERS: usize = 5;

/// Libraries of a JVM that are prepared for, at most: a JDK has some 40.
const MAX_LIBRARIES: usize = 64;

/// The loaders of glibc and musl, whose libc is beside them or in them.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"];

/// A child of ours between `fork` and `exec`.
pub struct Waiting {
    /// Its process id.
    pub pid: u32,
    go: File,
    spawner: JoinHandle<io::Result<Child>>,
}

impl Waiting {
    /// Forks; the child has its own rights from the beginning, and waits for
    /// [`Self::start`].
    ///
    /// # Errors
    /// Fails if there can be no pipe or no child, or it may not have these
    /// rights.
    pub fn fork(command: &[OsString], rights: Rights, preload: Option<Preload>) -> Result<Self> {
        let (program, arguments) = command
            .split_first()
            .context("no program to run was given")?;
        let (mut pid_reader, pid_writer) = pipe()?;
        let (go_reader, go) = pipe()?;
        let mut command = Command::new(program);
        command.args(arguments);
        for (name, value) in &rights.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(preload) = &preload {
            let before = rights.variable(VARIABLE);
            command.env(VARIABLE, preload.variable(before.as_deref()));
        }
        let (report, wait) = (OwnedFd::from(pid_writer), OwnedFd::from(go_reader));
        let parent_ends = [pid_reader.as_raw_fd(), go.as_raw_fd()];
        // SAFETY: between fork and exec the closure only makes system calls.
        unsafe {
            command.pre_exec(move || {
                rights.take()?;
                if let Some(preload) = &preload {
                    preload.hand_over()?;
                }
                wait_for_start(&report, &wait, parent_ends)
            });
        }
        // `spawn` returns only after exec, so it has a thread of its own.
        let spawner = std::thread::spawn(move || command.spawn());
        let mut pid = [0u8; 4];
        if pid_reader.read_exact(&mut pid).is_err() {
            spawner
                .join()
                .map_err(|_| anyhow!("the starting thread panicked"))?
                .context("cannot start a process as its user, with its limits")?;
            bail!("the child ended before it was traced");
        }
        Ok(Self {
            pid: u32::from_ne_bytes(pid),
            go,
            spawner,
        })
    }

    /// Lets the child call `exec`.
    ///
    /// # Errors
    /// Fails as `exec` does: no such program, for example.
    pub fn start(mut self) -> io::Result<Child> {
        self.go.write_all(&[1])?;
        drop(self.go);
        self.spawner
            .join()
            .map_err(|_| io::Error::other("the starting thread panicked"))?
    }
}

fn pipe() -> Result<(File, File)> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    Ok((File::from(reader), File::from(writer)))
}

/// In the child: says who it is, then waits. If the tracer dies instead, the
/// pipe closes and the program is not started.
fn wait_for_start(report: &OwnedFd, wait: &OwnedFd, parent_ends: [i32; 2]) -> io::Result<()> {
    for end in parent_ends {
        // SAFETY: our own copies of the parent's ends.
        unsafe { libc::close(end) };
    }
    let pid = std::process::id().to_ne_bytes();
    rustix::io::write(report, &pid)?;
    let mut byte = [0u8];
    loop {
        match rustix::io::read(wait, &mut byte) {
            Ok(1) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            _ => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// A file that a program will map.
pub struct Expected {
    /// The file.
    pub file: Arc<ModuleFile>,
    /// Its path.
    pub path: String,
    /// Whether it is the program itself.
    pub is_program: bool,
}

/// The files that a program will map first: itself, its loader, and what it
/// says that it needs; and the usual loaders, with their libc, which it may
/// call `exec` for. A script stands for its interpreter. What else it maps is
/// found when it does.
pub fn files_of(program: &Path) -> Vec<Expected> {
    let mut path = program.to_owned();
    for _ in 0..MAX_INTERPRETERS {
        let Some(interpreter) = script_interpreter(&path) else {
            break;
        };
        path = interpreter;
    }
    let mut candidates = vec![(path.clone(), true)];
    let own = allocator::loader(&path);
    let usual = LOADERS
        .iter()
        .filter_map(|loader| Path::new(loader).canonicalize().ok());
    for loader in own.into_iter().chain(usual) {
        candidates.push((loader.with_file_name("libc.so.6"), false));
        candidates.push((loader, false));
    }
    candidates.extend(jvm_libraries(&path).into_iter().map(|path| (path, false)));
    let mut files = ModuleFiles::new();
    let mut found: Vec<Expected> = Vec::new();
    for (path, is_program) in candidates {
        if let Ok(file) = files.open_path(&path)
            && found.iter().all(|known| known.file.mapped != file.mapped)
        {
            found.push(Expected {
                file,
                path: path.to_string_lossy().into_owned(),
                is_program,
            });
        }
    }
    found
}

/// What a JVM's launcher opens as soon as it runs, and some of it is large:
/// the libraries that lie where every JDK has them.
fn jvm_libraries(program: &Path) -> Vec<PathBuf> {
    let Some(home) = program.parent().and_then(Path::parent) else {
        return Vec::new();
    };
    let machine = home.join("lib/server/libjvm.so");
    if !machine.is_file() {
        return Vec::new();
    }
    let is_library = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "so");
    let beside = std::fs::read_dir(home.join("lib")).into_iter().flatten();
    let beside = beside.filter_map(|entry| Some(entry.ok()?.path()));
    let libraries = std::iter::once(machine).chain(beside.filter(is_library));
    libraries.take(MAX_LIBRARIES).collect()
}

/// The allocators among files.
pub fn allocators_in(files: &[Expected], declared: &[Declared]) -> Vec<Allocator> {
    let files = files.iter();
    files
        .filter_map(|file| {
            let found = allocator::in_file(&file.file, &file.path, file.is_program, declared);
            found.ok()?.allocator()
        })
        .collect()
}

/// Where `execvp` would find a program.
pub fn find_program(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.canonicalize().ok();
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find_map(|path| path.is_file().then(|| path.canonicalize().ok())?)
}

/// The interpreter in a script's first line.
fn script_interpreter(path: &Path) -> Option<PathBuf> {
    let mut start = [0u8; 256];
    let read = File::open(path).ok()?.read(&mut start).ok()?;
    let line = start[..read]
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line);
    let interpreter = line.split_whitespace().next()?;
    Path::new(interpreter).canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::allocator::Probed;

    #[test]
    fn a_dynamic_program_will_map_its_loaders_libc_first() {
        let found = allocators_in(&files_of(&find_program("cat".as_ref()).unwrap()), &[]);
        assert!(found[0].path.contains("libc"));
        assert!(
            found[0]
                .functions
                .iter()
                .any(|function| function.probed == Probed::Free)
        );
    }

    #[test]
    fn a_jvm_will_open_libraries() {
        let java = find_program("java".as_ref()).unwrap();
        let files = files_of(&java);
        assert!(files.iter().any(|file| file.path.ends_with("/libjvm.so")));
        assert!(files_of(&find_program("cat".as_ref()).unwrap()).len() < files.len());
    }

    #[test]
    fn a_child_waits_and_its_exit_code_comes_back() {
        let command = ["sh", "-c", "exit 7"].map(OsString::from);
        let waiting = Waiting::fork(&command, Rights::own(), None).unwrap();
        assert!(Path::new(&format!("/proc/{}", waiting.pid)).exists());
        assert_eq!(waiting.start().unwrap().wait().unwrap().code(), Some(7));
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let waiting = Waiting::fork(&["/no/such/program".into()], Rights::own(), None).unwrap();
        assert_eq!(waiting.start().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
