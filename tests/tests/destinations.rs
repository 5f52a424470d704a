//! Where reports are written, whoever the folder or the file belongs to.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use unfreed_tests::account::{Account, USER, said};
use unfreed_tests::{Outputs, Target, Tracer};

/// Root has fewer capabilities now, and still writes where others may not.
#[test]
fn reports_go_into_folders_of_others() -> Result<()> {
    let account = Account::of(USER)?;
    let out = Outputs::new()?;
    for (name, mode) in [("plain", 0o755), ("sticky", 0o1777)] {
        let folder = out.path(name);
        fs::create_dir(&folder)?;
        let old = folder.join("old.json");
        fs::write(&old, "")?;
        chown(&old, Some(account.uid + 1), None)?;
        chown(&folder, Some(account.uid), Some(account.gid))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
        for file in ["old.json", "new.json"] {
            let path = folder.join(file);
            let text = path.display().to_string();
            let finished = Tracer::run(&["-q", "-o", &text], &["true"])?.wait()?;
            ensure!(finished.status.success(), "{}", finished.stderr);
            let report = fs::read_to_string(&path)?;
            ensure!(report.contains("unfreed/1"), "{report}");
            assert_eq!(path.metadata()?.uid(), 0, "{text}");
        }
    }
    Ok(())
}

/// A file that is mounted over another; unmounted with this value.
struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _still_busy = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_file_that_is_mounted_is_filled() -> Result<()> {
    let out = Outputs::new()?;
    let (inside, outside) = (out.text("inside.json"), out.text("outside.json"));
    fs::write(&inside, "")?;
    fs::write(&outside, "an older report, ".repeat(1000))?;
    said(Command::new("mount").args(["--bind", &outside, &inside]))?;
    let mounted = Mounted(inside);
    let finished = Tracer::run(&["-q", "-o", &mounted.0], &["true"])?.wait()?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    let is_report = |path: &str| -> Result<()> {
        let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        assert_eq!(report["schema"], "unfreed/1");
        Ok(())
    };
    is_report(&mounted.0)?;
    is_report(&outside)?;
    drop(mounted);
    ensure!(Path::new(&outside).metadata()?.len() > 0);
    Ok(())
}

/// A pipe that is swapped for a link while the target is traced.
#[test]
fn what_was_checked_is_what_is_written() -> Result<()> {
    let target = Target::start("leak")?;
    let out = Outputs::new()?;
    let (pipe, victim) = (out.path("report.folded"), out.path("victim"));
    said(Command::new("mkfifo").arg(&pipe))?;
    fs::write(&victim, "precious")?;
    let mut both = fs::OpenOptions::new();
    let both = both.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let mut reader = both.open(&pipe)?;
    let output = pipe.display().to_string();
    let tracer = Tracer::record(target.pid, &["-o", &output])?;
    fs::remove_file(&pipe)?;
    std::os::unix::fs::symlink(&victim, &pipe)?;
    tracer
        .stop()?
        .fails_saying(&[&output, "was a pipe when it was checked"])?;
    assert_eq!(fs::read_to_string(&victim)?, "precious");
    ensure!(pipe.is_symlink());
    let mut bytes = Vec::new();
    let _nothing_to_read = reader.read_to_end(&mut bytes);
    ensure!(bytes.is_empty());
    Ok(())
}
