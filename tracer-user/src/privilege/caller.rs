//! Who had us started as root: by sudo, doas or pkexec.
//!
//! They say so in environment variables, which anybody can set. They are
//! believed only if our real user is root: then whoever set them could be
//! anybody anyway.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use rustix::process::getuid;

/// No user or group has this id: system calls take it for "leave it".
const NO_ID: u32 = u32::MAX;

/// The user on whose behalf we run as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub user: u32,
    /// Primary group.
    pub group: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// What the system knows of the user; an id without an entry is a user
    /// too.
    pub account: Option<Account>,
    /// The program that made us root.
    pub by: &'static str,
}

/// A user's entry in the system's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The home folder.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

/// What the environment says.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// Ids, and a name, since several may have one id.
    Ids {
        user: u32,
        group: Option<u32>,
        name: Option<String>,
        by: &'static str,
    },
    /// A name alone.
    Name { name: String, by: &'static str },
}

impl Caller {
    /// Who called sudo, doas or pkexec; none if nobody did, or root.
    ///
    /// # Errors
    /// Fails if what they say is nonsense: then it is not known as whom a
    /// program should run.
    pub fn find() -> Result<Option<Self>> {
        if !getuid().is_root() {
            return Ok(None);
        }
        let Some(claim) = claim(|name| env::var_os(name))? else {
            return Ok(None);
        };
        let caller = claim.resolve()?;
        Ok((caller.user != 0).then_some(caller))
    }

    /// `alice (uid 1000)`, `uid 1000`.
    pub fn describe(&self) -> String {
        match &self.account {
            Some(account) => format!("{} (uid {})", account.name, self.user),
            None => format!("uid {}", self.user),
        }
    }
}

impl Account {
    /// The entry of a user id.
    ///
    /// # Errors
    /// Fails if the system's list cannot be read.
    pub fn of(user: u32) -> Result<Option<Self>> {
        Ok(entry(user)?.map(|user| Self::from(&user)))
    }
}

impl From<&User> for Account {
    fn from(user: &User) -> Self {
        Self {
            name: user.name.clone(),
            home: user.dir.clone(),
            shell: user.shell.clone(),
        }
    }
}

fn entry(user: u32) -> Result<Option<User>> {
    User::from_uid(Uid::from_raw(user)).with_context(|| format!("cannot look up user {user}"))
}

/// Reads the variables. sudo says most, so it comes first.
fn claim(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Claim>> {
    let id = |name: &str| variable(name).map(|text| parse(name, &text)).transpose();
    if let Some(user) = id("SUDO_UID")? {
        let name = variable("SUDO_USER").and_then(|name| name.into_string().ok());
        return Ok(Some(Claim::Ids {
            user,
            group: id("SUDO_GID")?,
            name,
            by: "sudo",
        }));
    }
    if let Some(name) = variable("DOAS_USER") {
        let name = name.to_string_lossy().into_owned();
        return Ok(Some(Claim::Name { name, by: "doas" }));
    }
    Ok(id("PKEXEC_UID")?.map(|user| Claim::Ids {
        user,
        group: None,
        name: None,
        by: "pkexec",
    }))
}

/// An id in decimal digits.
fn parse(name: &str, text: &OsStr) -> Result<u32> {
    let digits = text
        .to_str()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let id = digits.and_then(|digits| digits.parse().ok());
    match id.filter(|id| *id != NO_ID) {
        Some(id) => Ok(id),
        None => bail!(
            "{name} is {text:?}, which is no id: it is not known as whom the program should run; unset it, or choose root with --as-root"
        ),
    }
}

impl Claim {
    fn resolve(self) -> Result<Caller> {
        match self {
            Self::Ids {
                user,
                group,
                name,
                by,
            } => {
                let named = name.map(|name| User::from_name(&name)).transpose()?;
                let named = named.flatten().filter(|named| named.uid.as_raw() == user);
                let entry = match named {
                    Some(named) => Some(named),
                    None => entry(user)?,
                };
                let own = entry.as_ref().map(|entry| entry.gid.as_raw());
                let group = group.or(own).with_context(|| {
                    format!("user {user}, who called {by}, has no entry and no group: it is not known as whom the program should run; choose root with --as-root")
                })?;
                Ok(Caller::of(user, group, entry.as_ref(), by))
            }
            Self::Name { name, by } => {
                let entry = User::from_name(&name)?.with_context(|| {
                    format!("there is no user {name:?}, who is said to have called {by}; choose root with --as-root")
                })?;
                let (user, group) = (entry.uid.as_raw(), entry.gid.as_raw());
                Ok(Caller::of(user, group, Some(&entry), by))
            }
        }
    }
}

impl Caller {
    fn of(user: u32, group: u32, entry: Option<&User>, by: &'static str) -> Self {
        Self {
            user,
            group,
            groups: entry.map_or(vec![group], |entry| groups(&entry.name, group)),
            account: entry.map(Account::from),
            by,
        }
    }
}

/// What `initgroups` would set.
fn groups(name: &str, group: u32) -> Vec<u32> {
    let found = CString::new(name)
        .ok()
        .and_then(|name| getgrouplist(&name, Gid::from_raw(group)).ok());
    found.map_or(vec![group], |found| {
        found.into_iter().map(Gid::as_raw).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &[(&str, &str)]) -> Result<Option<Claim>> {
        claim(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn sudo_comes_before_doas_and_pkexec() {
        let sudo = [
            ("SUDO_UID", "1000"),
            ("SUDO_GID", "100"),
            ("SUDO_USER", "alice"),
            ("DOAS_USER", "bob"),
            ("PKEXEC_UID", "7"),
        ];
        let expected = Claim::Ids {
            user: 1000,
            group: Some(100),
            name: Some("alice".to_owned()),
            by: "sudo",
        };
        assert_eq!(said(&sudo).unwrap(), Some(expected));
        let doas = said(&sudo[3..]).unwrap();
        assert!(matches!(doas, Some(Claim::Name { name, .. }) if name == "bob"));
        let pkexec = said(&sudo[4..]).unwrap();
        assert!(matches!(pkexec, Some(Claim::Ids { user: 7, .. })));
        assert_eq!(said(&[]).unwrap(), None);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "x", "-1", "+1", "1 ", "4294967295", "4294967296"] {
            let error = said(&[("SUDO_UID", text)]).unwrap_err().to_string();
            assert!(error.contains("SUDO_UID"), "{error}");
            let group = [("SUDO_UID", "1"), ("SUDO_GID", text)];
            assert!(said(&group).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_user_has_an_account_and_an_id_without_one_is_a_user_too() {
        let ids = |user, group, name: Option<&str>| Claim::Ids {
            user,
            group,
            name: name.map(ToOwned::to_owned),
            by: "sudo",
        };
        let root = ids(0, None, None).resolve().unwrap();
        assert_eq!(root.account.unwrap().name, "root");
        assert!(root.groups.contains(&0));
        let nobody = ids(4_000_000_001, Some(7), Some("root")).resolve().unwrap();
        assert_eq!((nobody.account, nobody.groups), (None, vec![7]));
        assert!(ids(4_000_000_001, None, None).resolve().is_err());
        let missing = Claim::Name {
            name: "no such user".to_owned(),
            by: "doas",
        };
        assert!(missing.resolve().is_err());
    }
}
