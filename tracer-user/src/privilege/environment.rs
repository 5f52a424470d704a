//! The environment of a program that runs as the user who called sudo.
//!
//! What sudo took away cannot be had back (`sudo -E` has it leave more). What
//! it set for root is undone.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::caller::Account;

/// Variables that say who called. sudo's begin with this.
const SUDO: &[u8] = b"SUDO_";
const OTHERS: [&str; 2] = ["DOAS_USER", "PKEXEC_UID"];

/// Variables with a user's name.
const NAMES: [&str; 3] = ["USER", "LOGNAME", "USERNAME"];

/// A variable and its new value; none to remove it.
pub type Change = (OsString, Option<OsString>);

/// What to change in `variables` for the user with this account, after they
/// were set for `root`. What has another value than root's was handed on.
pub fn changes(
    variables: impl Iterator<Item = (OsString, OsString)>,
    root: &Account,
    user: Option<&Account>,
) -> Vec<Change> {
    let change = |(name, value): (OsString, OsString)| {
        let new = changed(&name, &value, root, user)?;
        Some((name, new))
    };
    variables.filter_map(change).collect()
}

/// The new value of a variable that changes; `Some(None)` to remove it.
fn changed(
    name: &OsStr,
    value: &OsStr,
    root: &Account,
    user: Option<&Account>,
) -> Option<Option<OsString>> {
    if name.as_bytes().starts_with(SUDO) || OTHERS.iter().any(|other| name == *other) {
        return Some(None);
    }
    let (was_set, own) = if NAMES.iter().any(|other| name == *other) {
        (
            value == root.name.as_str(),
            user.map(|user| OsString::from(&user.name)),
        )
    } else if name == "HOME" {
        (
            value == root.home,
            user.map(|user| OsString::from(&user.home)),
        )
    } else if name == "SHELL" {
        (
            value == root.shell,
            user.map(|user| OsString::from(&user.shell)),
        )
    } else if name == "MAIL" {
        let mailbox = Path::new(value);
        let own = user.map(|user| mailbox.with_file_name(&user.name).into_os_string());
        (mailbox.file_name() == Some(OsStr::new(&root.name)), own)
    } else {
        return None;
    };
    was_set.then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, home: &str, shell: &str) -> Account {
        Account {
            name: name.to_owned(),
            home: home.into(),
            shell: shell.into(),
        }
    }

    fn changed_to(variables: &[(&str, &str)], user: Option<&Account>) -> Vec<Change> {
        let root = account("root", "/root", "/bin/bash");
        let variables = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        changes(variables, &root, user)
    }

    #[test]
    fn what_sudo_set_is_undone() {
        let alice = account("alice", "/home/alice", "/bin/zsh");
        let set = [
            ("HOME", "/root"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("SHELL", "/bin/bash"),
            ("MAIL", "/var/mail/root"),
            ("SUDO_UID", "1000"),
            ("SUDO_COMMAND", "/usr/bin/unfreed run"),
            ("PATH", "/usr/sbin:/usr/bin"),
            ("LANG", "C.UTF-8"),
        ];
        let expected = [
            ("HOME", Some("/home/alice")),
            ("USER", Some("alice")),
            ("LOGNAME", Some("alice")),
            ("SHELL", Some("/bin/zsh")),
            ("MAIL", Some("/var/mail/alice")),
            ("SUDO_UID", None),
            ("SUDO_COMMAND", None),
        ]
        .map(|(name, value)| (OsString::from(name), value.map(OsString::from)));
        assert_eq!(changed_to(&set, Some(&alice)), expected);
        let removed = changed_to(&set, None);
        assert!(removed.iter().all(|(_, value)| value.is_none()));
        assert_eq!(removed.len(), expected.len());
    }

    #[test]
    fn what_was_handed_on_stays() {
        let alice = account("alice", "/home/alice", "/bin/zsh");
        let own = [
            ("HOME", "/tmp/build"),
            ("USER", "alice"),
            ("SHELL", "/bin/fish"),
            ("MAIL", "/var/mail/alice"),
            ("PSEUDO_UID", "1"),
        ];
        assert!(changed_to(&own, Some(&alice)).is_empty());
    }
}
