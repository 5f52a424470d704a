//! Users of this machine, and the environment that sudo makes when one of them calls
//! a program as root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{Outputs, target_path};

/// A user whom every Debian has, whose name is his group's, and whose ids
/// differ.
pub const USER: &str = "games";

/// An entry of the system's list of users, as its own tools tell it.
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Its group's.
    pub gid: u32,
    /// Its home.
    pub home: String,
    /// Its shell.
    pub shell: String,
    /// The numbers of all of its groups, as `id -G` prints them.
    pub groups: String,
}

impl Account {
    /// The entry of a user.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn of(name: &str) -> Result<Self> {
        let entry = said(Command::new("getent").args(["passwd", name]))?;
        let fields: Vec<&str> = entry.trim().split(':').collect();
        let [_, _, uid, gid, _, home, shell] = fields[..] else {
            anyhow::bail!("no user {name}: {entry:?}");
        };
        Ok(Self {
            uid: uid.parse()?,
            gid: gid.parse()?,
            home: home.to_owned(),
            shell: shell.to_owned(),
            groups: said(Command::new("id").args(["-G", name]))?,
        })
    }
}

/// What a command prints.
///
/// # Errors
/// It fails.
pub fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A target's copy in a folder that anybody may enter.
///
/// # Errors
/// It cannot be copied.
pub fn leak_for_all(folder: &Outputs) -> Result<String> {
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path("leak");
    fs::copy(target_path("leak")?, &copy)?;
    Ok(copy.display().to_string())
}

/// The environment that sudo makes for root.
pub fn as_sudo(command: &mut Command, account: &Account) {
    command
        .current_dir("/")
        .env("SUDO_UID", account.uid.to_string())
        .env("SUDO_GID", account.gid.to_string())
        .env("SUDO_USER", USER)
        .env("SUDO_COMMAND", "unfreed")
        .envs([("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root")])
        .envs([("SHELL", "/bin/bash"), ("MAIL", "/var/mail/root")]);
}
