//! What the Debian package has, once it is unpacked into a folder as dpkg unpacks it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::shell::{capture, run};

/// Files that anybody may read, in the package.
const FILES: &[&str] = &[
    "etc/unfreed.toml",
    "usr/share/doc/unfreed/README.md",
    "usr/share/doc/unfreed/copyright",
    "usr/share/doc/unfreed/LICENSE-MIT",
    "usr/share/doc/unfreed/LICENSE-APACHE",
    "usr/share/doc/unfreed/prometheus/unfreed.rules.yml",
    "usr/share/doc/unfreed/kubernetes/unfreed.yaml",
    "usr/share/bash-completion/completions/unfreed",
    "usr/share/zsh/vendor-completions/_unfreed",
    "usr/share/fish/vendor_completions.d/unfreed.fish",
];

/// Manual pages, each of which names itself.
const PAGES: &[&str] = &["unfreed", "unfreed-record", "unfreed-serve", "unfreed-top"];

/// Where systemd looks for units of packages.
const UNITS: [&str; 2] = ["usr/lib/systemd/system", "lib/systemd/system"];

/// What scripts of the package may not do with the service: whether it runs is the
/// administrator's to say.
const NOT_DONE: [&str; 3] = [
    "systemctl enable",
    "deb-systemd-invoke start",
    "systemctl start",
];

/// Unpacks a package below `folder`, and checks that all is there and works.
///
/// # Errors
/// Says what is missing or wrong.
pub(crate) fn check(package: &Path, folder: &Path, version: &str) -> Result<()> {
    let unpacked = Unpacked {
        root: folder.join("root"),
        control: folder.join("control"),
    };
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .args([package, unpacked.root.as_path()]))?;
    run(Command::new("dpkg-deb")
        .arg("--control")
        .args([package, unpacked.control.as_path()]))?;
    for file in FILES {
        unpacked.has(file, 0o644)?;
    }
    unpacked.has_binary(version)?;
    for page in PAGES {
        unpacked.has_page(page)?;
    }
    unpacked.has_unit()?;
    unpacked.has_control(version)
}

/// A package that was unpacked.
struct Unpacked {
    /// Its files.
    root: PathBuf,
    /// What dpkg is told, and its scripts.
    control: PathBuf,
}

impl Unpacked {
    fn has(&self, file: &str, mode: u32) -> Result<PathBuf> {
        let path = self.root.join(file);
        let about = fs::metadata(&path).with_context(|| format!("the package has no /{file}"))?;
        let found = about.permissions().mode() & 0o7777;
        ensure!(found == mode, "/{file} has mode {found:o}, not {mode:o}");
        ensure!(about.len() > 0, "/{file} is empty");
        Ok(path)
    }

    /// It is of this version, and takes the configuration that comes with it.
    fn has_binary(&self, version: &str) -> Result<()> {
        let binary = self.has("usr/bin/unfreed", 0o755)?;
        let said = capture(Command::new(&binary).arg("--version"))?;
        ensure!(said.split_whitespace().nth(1) == Some(version), "{said}");
        let config = self.root.join("etc/unfreed.toml");
        run(Command::new(&binary)
            .args(["serve", "--check", "--config"])
            .arg(config))
    }

    fn has_page(&self, page: &str) -> Result<()> {
        let path = self.has(&format!("usr/share/man/man1/{page}.1.gz"), 0o644)?;
        let text = capture(
            Command::new("gzip")
                .args(["--decompress", "--stdout"])
                .arg(path),
        )?;
        let title = format!(".TH {page} 1");
        ensure!(text.contains(&title), "the page of {page} has no {title:?}");
        Ok(())
    }

    /// The unit is there, and neither enabled nor started.
    fn has_unit(&self) -> Result<()> {
        let mut places = UNITS
            .iter()
            .map(|folder| format!("{folder}/unfreed.service"));
        let unit = places.find(|place| self.root.join(place).exists());
        let unit = self.has(&unit.context("the package has no unit")?, 0o644)?;
        let text = fs::read_to_string(unit)?;
        ensure!(text.contains("[Install]"), "nobody can enable the unit");
        let links = self.root.join("etc/systemd");
        ensure!(!links.exists(), "{} enables the unit", links.display());
        for script in ["postinst", "prerm", "postrm", "preinst"] {
            let text = fs::read_to_string(self.control.join(script)).unwrap_or_default();
            for done in NOT_DONE {
                ensure!(!text.contains(done), "{script} has {done:?}:\n{text}");
            }
        }
        Ok(())
    }

    fn has_control(&self, version: &str) -> Result<()> {
        let read = |name: &str| {
            let text = fs::read_to_string(self.control.join(name));
            text.with_context(|| format!("the package has no {name}"))
        };
        let control = read("control")?;
        for line in ["Package: unfreed", &format!("Version: {version}-1")] {
            ensure!(
                control.lines().any(|it| it == line),
                "no {line:?}:\n{control}"
            );
        }
        let depends = control.lines().find(|line| line.starts_with("Depends: "));
        ensure!(
            depends.is_some_and(|line| line.contains("libc6")),
            "it has to depend on libc:\n{control}"
        );
        // What the administrator changed there stays at an upgrade.
        let kept = read("conffiles")?;
        ensure!(kept.contains("/etc/unfreed.toml"), "{kept}");
        Ok(())
    }
}
