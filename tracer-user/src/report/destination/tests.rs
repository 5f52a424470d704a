use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::*;

fn put(destination: &Destination, text: &str) -> Result<()> {
    destination.write(|writer| Ok(writer.write_all(text.as_bytes())?))
}

fn write(path: &Path, text: &str) -> Result<()> {
    put(&Destination::new(path), text)
}

fn refusal(path: &Path) -> String {
    format!("{:#}", Destination::new(path).check().unwrap_err())
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

fn make_pipe(path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the path is a string that ends with a null.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o644) }, 0);
}

/// Both ends of a pipe: nobody waits for the other.
fn open_both(path: &Path) -> fs::File {
    let mut options = fs::OpenOptions::new();
    let both = options.read(true).write(true);
    both.custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

#[test]
fn a_check_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (new, old) = (folder.path().join("new"), folder.path().join("old"));
    fs::write(&old, "content").unwrap();
    Destination::new(&new).check().unwrap();
    Destination::new(&old).check().unwrap();
    assert_eq!(entries(folder.path()), 1);
    assert_eq!(fs::read_to_string(&old).unwrap(), "content");
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    fs::write(&path, "old").unwrap();
    let error = Destination::new(&path)
        .write(|writer| {
            writer.write_all(b"half")?;
            bail!("no more")
        })
        .unwrap_err();
    assert!(format!("{error:#}").ends_with("a.json: no more"));
    assert_eq!(
        (
            fs::read_to_string(&path).unwrap().as_str(),
            entries(folder.path())
        ),
        ("old", 1)
    );
    write(&path, "new").unwrap();
    assert_eq!(
        (
            fs::read_to_string(&path).unwrap().as_str(),
            entries(folder.path())
        ),
        ("new", 1)
    );
}

#[test]
fn a_link_is_replaced_and_its_target_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("precious"), folder.path().join("a.json"));
    fs::write(&target, "precious").unwrap();
    symlink(&target, &link).unwrap();
    write(&link, "report").unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn what_cannot_be_written_is_found_by_the_check() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(folder.path()).contains("it is a folder"));
    let missing = folder.path().join("none");
    let expected = format!(
        "cannot write {0}/a.svg: cannot create a file in {0}: No such file or directory (os error 2)",
        missing.display()
    );
    assert_eq!(refusal(&missing.join("a.svg")), expected);
    let long = folder.path().join("x".repeat(300));
    assert!(refusal(&long).contains("File name too long"));
    assert!(refusal(Path::new("/proc/a.svg")).contains("cannot create a file in /proc"));
    assert!(refusal(Path::new("a/")).contains("it names a folder"));
}

#[test]
fn a_device_is_written_to_and_not_replaced() {
    let full = Path::new("/dev/full");
    Destination::new(full).check().unwrap();
    let error = format!("{:#}", write(full, "x").unwrap_err());
    assert_eq!(
        error,
        "cannot write /dev/full: No space left on device (os error 28)"
    );
    write(Path::new("/dev/null"), "x").unwrap();
    assert!(
        fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
}

/// Of our own descriptors even a regular file is written to: it has no name
/// that could be given to another.
#[test]
fn a_descriptor_is_written_to() {
    use std::os::fd::AsRawFd;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"older and longer").unwrap();
    let path = format!("/dev/fd/{}", file.as_raw_fd());
    let destination = Destination::new(Path::new(&path));
    destination.check().unwrap();
    put(&destination, "new").unwrap();
    let mut text = String::new();
    io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "new");
}

/// Root may give its links to another user; ours are followed.
#[test]
fn a_link_of_another_user_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("a.json");
    symlink("/dev/null", &link).unwrap();
    Destination::new(&link).check().unwrap();
    if std::os::unix::fs::lchown(&link, Some(65_534), None).is_ok() {
        let error = refusal(&link);
        assert!(error.contains("a link of another user"), "{error}");
    }
}

#[test]
fn a_pipe_of_another_user_is_written_to_in_no_shared_folder() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("a.json");
    make_pipe(&pipe);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    Destination::new(&pipe).check().unwrap();
    if std::os::unix::fs::chown(&pipe, Some(65_534), None).is_ok() {
        let error = refusal(&pipe);
        assert!(error.contains("a pipe of another user"), "{error}");
    }
}

#[test]
fn the_folder_is_the_one_that_was_checked() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, moved) = (parent.path().join("out"), parent.path().join("moved"));
    let precious = parent.path().join("precious");
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&precious).unwrap();
    let destination = Destination::new(&folder.join("a.json"));
    destination.check().unwrap();
    fs::rename(&folder, &moved).unwrap();
    symlink(&precious, &folder).unwrap();
    put(&destination, "report").unwrap();
    assert_eq!(entries(&precious), 0);
    assert_eq!(fs::read_to_string(moved.join("a.json")).unwrap(), "report");
}

#[test]
fn what_was_put_in_a_files_place_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let destination = Destination::new(&path);
    destination.check().unwrap();
    make_pipe(&path);
    let error = format!("{:#}", put(&destination, "report").unwrap_err());
    assert!(
        error.contains("it is a pipe now, and was a regular file, or nothing"),
        "{error}"
    );
    // Another pipe is not the one that was checked either.
    let destination = Destination::new(&path);
    destination.check().unwrap();
    fs::rename(&path, folder.path().join("old")).unwrap();
    make_pipe(&path);
    let error = format!("{:#}", put(&destination, "report").unwrap_err());
    assert!(error.contains("somebody put it there"), "{error}");
}

/// A name that is a pipe and a link to a precious file by turns, as fast as a
/// thread can do that.
struct Racer {
    folder: tempfile::TempDir,
    name: PathBuf,
    pipe: fs::File,
    victim: PathBuf,
    over: std::sync::Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Racer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = |name: &str| folder.path().join(name);
        let (name, victim, pipe) = (own("a.json"), own("victim"), own("pipe"));
        fs::write(&victim, "precious").unwrap();
        make_pipe(&pipe);
        fs::hard_link(&pipe, &name).unwrap();
        Self {
            pipe: open_both(&pipe),
            folder,
            name,
            victim,
            over: std::sync::Arc::default(),
            thread: None,
        }
    }

    fn start(&mut self) {
        let own = |name: &str| self.folder.path().join(name);
        let (name, victim, pipe, fresh) =
            (self.name.clone(), own("victim"), own("pipe"), own("fresh"));
        let over = std::sync::Arc::clone(&self.over);
        self.thread = Some(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                symlink(&victim, &fresh).unwrap();
                fs::rename(&fresh, &name).unwrap();
                fs::hard_link(&pipe, &fresh).unwrap();
                fs::rename(&fresh, &name).unwrap();
            }
        }));
    }

    fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }

    fn victim_is_whole(&self) {
        assert_eq!(fs::read_to_string(&self.victim).unwrap(), "precious");
    }

    fn bytes_in_pipe(&mut self) -> usize {
        let mut bytes = Vec::new();
        // Nothing left to read is an error of a pipe that does not wait.
        let _empty = self.pipe.read_to_end(&mut bytes);
        bytes.len()
    }
}

const TEXT: &str = "report";
const TRIES: usize = 20_000;

/// Tries often, and on until `enough` says so of what was written and refused.
fn race(
    racer: &mut Racer,
    enough: impl Fn(usize, usize) -> bool,
    mut attempt: impl FnMut(&Path) -> Result<()>,
) -> (usize, usize) {
    let end = Instant::now() + Duration::from_secs(60);
    let (mut written, mut refused) = (0, 0);
    racer.start();
    while written + refused < TRIES || (!enough(written, refused) && Instant::now() < end) {
        match attempt(&racer.name) {
            Ok(()) => written += 1,
            Err(error) => {
                refused += 1;
                let error = format!("{error:#}");
                assert!(
                    error.contains("when it was checked"),
                    "refused without a reason: {error}"
                );
            }
        }
        racer.victim_is_whole();
    }
    racer.stop();
    racer.victim_is_whole();
    (written, refused)
}

#[test]
fn a_pipe_that_becomes_a_link_is_not_followed() {
    let mut racer = Racer::new();
    let destination = Destination::new(&racer.name);
    destination.check().unwrap();
    let mut in_pipe = 0;
    let mut pipe = racer.pipe.try_clone().unwrap();
    let both = |written, refused| written > 0 && refused > 0;
    let (written, refused) = race(&mut racer, both, |_| {
        let written = put(&destination, TEXT);
        let mut bytes = [0; 2 * TEXT.len()];
        in_pipe += pipe.read(&mut bytes).unwrap_or(0);
        written
    });
    assert!(both(written, refused), "{written} {refused}");
    // All that was written went into the pipe that was checked.
    assert_eq!(
        in_pipe + racer.bytes_in_pipe(),
        written * TEXT.len(),
        "{refused} refused"
    );
}

#[test]
fn no_moment_between_check_and_write_is_long_enough() {
    let mut racer = Racer::new();
    let mut pipe = racer.pipe.try_clone().unwrap();
    race(
        &mut racer,
        |_, _| true,
        |name| {
            let destination = Destination::new(name);
            destination.check()?;
            let written = put(&destination, TEXT);
            let _empty = pipe.read(&mut [0; 2 * TEXT.len()]);
            written
        },
    );
}
