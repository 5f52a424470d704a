//! A target in a container: its root is an overlay file system that nobody else sees, and it has
//! users, process ids and mounts of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Target, target_path};

/// Where a program is in its container.
const FOLDER: &str = "app";
/// Whose container it is.
const NOBODY: &str = "65534";

/// The files of a container that is to be.
#[derive(Debug)]
pub struct Image {
    folder: TempDir,
    program: String,
}

/// A container with a target in it. It ends with this value.
#[derive(Debug)]
pub struct Container {
    /// The target, by its process id in our namespace. For itself it is process 1.
    pub target: Target,
    /// The path of its program inside.
    pub program: PathBuf,
}

impl Image {
    /// A target program, with the libraries that it is linked with.
    ///
    /// # Errors
    /// It was not built, or a file cannot be copied.
    pub fn of(program: &str) -> Result<Self> {
        let image = Self {
            folder: tempfile::tempdir()?,
            program: program.to_owned(),
        };
        // Nobody reads it.
        fs::set_permissions(image.folder.path(), Permissions::from_mode(0o755))?;
        fs::create_dir(image.folder.path().join("room"))?;
        let source = target_path(program)?;
        for library in libraries(&source)? {
            image.add(&library, &library)?;
        }
        let inside = image.inside();
        image.add(&source, &inside)?;
        Ok(image)
    }

    /// The path of the program inside.
    pub fn inside(&self) -> PathBuf {
        Path::new("/").join(FOLDER).join(&self.program)
    }

    /// Where a file of the image is until the container is made of it.
    pub fn outside(&self, inside: &Path) -> PathBuf {
        let image = self.folder.path().join("image");
        image.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    fn add(&self, source: &Path, inside: &Path) -> Result<()> {
        let path = self.outside(inside);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::copy(source, &path).with_context(|| source.display().to_string())?;
        Ok(())
    }

    /// Makes a container of it, and takes it away: what it has is only inside then.
    ///
    /// # Errors
    /// The kernel refuses it, or the target ended.
    pub fn start(self) -> Result<Container> {
        let (script, program) = (self.folder.path().join("container.py"), self.inside());
        fs::write(&script, include_str!("container.py"))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .args(["unshare", "--user", "--map-root-user", "--mount"])
            .args(["--pid", "--fork", "--kill-child", "/usr/bin/python3"])
            .arg(&script)
            .arg(self.folder.path())
            .arg(&program)
            .current_dir("/");
        let mut target = Target::start_with(&mut command)?;
        ensure!(target.pid == 1, "it is {} for itself", target.pid);
        target.pid = child_of(target.child_pid())?;
        let container = Container { target, program };
        container.is_one()?;
        Ok(container)
    }
}

impl Container {
    /// A container of a target program and its libraries.
    ///
    /// # Errors
    /// See [`Image::of`] and [`Image::start`].
    pub fn start(program: &str) -> Result<Self> {
        Image::of(program)?.start()
    }

    /// Its namespaces are not ours, its root is an overlay, and its program is nowhere else.
    fn is_one(&self) -> Result<()> {
        let own = format!("/proc/{}", self.target.pid);
        for kind in ["user", "pid", "mnt"] {
            let of = |process: &str| fs::read_link(format!("{process}/ns/{kind}"));
            ensure!(of(&own)? != of("/proc/self")?, "no {kind} namespace");
        }
        let mounts = fs::read_to_string(format!("{own}/mountinfo"))?;
        let mut lines = mounts.lines();
        let is_root = |line: &&str| line.split(' ').nth(4) == Some("/");
        let root = lines.find(is_root).context("no root")?;
        ensure!(root.contains(" - overlay "), "{root}");
        ensure!(!self.program.exists(), "{} is ours", self.program.display());
        Ok(())
    }
}

/// What the dynamic linker of a program loads with it, itself among that.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let headers = said_of("readelf", &["--program-headers", "--wide"], program)?;
    let interpreter = headers.split("interpreter: ").nth(1);
    let interpreter = interpreter.and_then(|rest| rest.split(']').next());
    let Some(interpreter) = interpreter.map(PathBuf::from) else {
        return Ok(Vec::new());
    };
    // musl's is the library, too.
    if interpreter.to_string_lossy().contains("musl") {
        return Ok(vec![interpreter]);
    }
    let listed = said_of("ldd", &[], program)?;
    let paths = listed.split_whitespace().filter(|it| it.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

fn said_of(tool: &str, arguments: &[&str], program: &Path) -> Result<String> {
    let output = Command::new(tool).args(arguments).arg(program).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The only child of a process, such as `unshare`.
///
/// # Errors
/// It has none, or several.
pub fn child_of(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let child = children.trim().parse();
    child.with_context(|| format!("children of {pid}: {children:?}"))
}
