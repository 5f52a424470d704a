//! As whom, with which limits and with which environment a program of ours
//! runs.

use std::env;
use std::ffi::OsString;
use std::io;

use anyhow::Result;
use rustix::process::{Gid, Uid, getgid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::caller::{Account, Caller};
use super::environment::{self, Change};
use super::limits::Limits;

/// What the program gets instead of the tracer's.
#[derive(Debug)]
pub struct Rights {
    limits: Limits,
    /// None if it runs as whoever started us.
    user: Option<Ids>,
    /// Variables to change.
    pub environment: Vec<Change>,
}

/// A user's ids.
#[derive(Debug)]
struct Ids {
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Rights {
    /// Those of whoever started us.
    pub fn own() -> Self {
        Self {
            limits: Limits::found().clone(),
            user: None,
            environment: Vec::new(),
        }
    }

    /// Those of the user who had us started as root.
    ///
    /// # Errors
    /// Fails if the system's list of users cannot be read.
    pub fn of(caller: &Caller) -> Result<Self> {
        let root = Account::of(0)?.unwrap_or_else(|| Account {
            name: "root".to_owned(),
            home: "/root".into(),
            shell: "/bin/sh".into(),
        });
        let user = caller.account.as_ref();
        Ok(Self {
            environment: environment::changes(env::vars_os(), &root, user),
            user: Some(Ids {
                user: Uid::from_raw(caller.user),
                group: Gid::from_raw(caller.group),
                groups: caller.groups.iter().copied().map(Gid::from_raw).collect(),
            }),
            ..Self::own()
        })
    }

    /// The user and the group that the program runs as.
    pub fn ids(&self) -> (u32, u32) {
        let own = || (getuid().as_raw(), getgid().as_raw());
        self.user
            .as_ref()
            .map_or_else(own, |ids| (ids.user.as_raw(), ids.group.as_raw()))
    }

    /// The value that a variable of the program's environment has.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        let changed = self.environment.iter().find(|(known, _)| known == name);
        match changed {
            Some((_, value)) => value.clone(),
            None => env::var_os(name),
        }
    }

    /// Takes them, for good, in a child that has not called `exec` yet: makes
    /// system calls and nothing else. The child has one thread, so that these
    /// are the process's.
    ///
    /// # Errors
    /// Fails if the kernel refuses any of them, or root could be had back.
    pub fn take(&self) -> io::Result<()> {
        self.limits.set()?;
        match &self.user {
            Some(ids) => ids.take(),
            // A tracer that is set-uid (it should not be) lends nobody its rights.
            None => become_user(getuid(), getgid()),
        }
    }
}

impl Ids {
    fn take(&self) -> io::Result<()> {
        set_thread_groups(&self.groups)?;
        become_user(self.user, self.group)?;
        // The kernel has taken the capabilities away by now, but for the
        // inheritable ones, and unless it was told not to ("secure bits").
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        clear_ambient_capability_set()?;
        set_capabilities(None, none)?;
        let is_root_again = set_thread_res_uid(None, Uid::ROOT, None).is_ok();
        if is_root_again || capabilities(None)? != none {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }
}

/// Real, effective and saved ids; the group first, since a plain user could
/// not change it any more.
fn become_user(user: Uid, group: Gid) -> io::Result<()> {
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(())
}
