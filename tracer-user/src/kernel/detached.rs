//! File systems that nobody else sees: they are mounted nowhere, hang on a descriptor of
//! ours, and end with it (`fsopen`, `fsmount`; Linux 5.2).

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::privilege::capability::{MOUNT, with};

/// The root of a file system of a type.
///
/// # Errors
/// Fails without `CAP_SYS_ADMIN`, or on a kernel without that type.
pub(super) fn mount(kind: &str, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let mount = || {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    with(MOUNT, mount).with_context(|| format!("cannot have a {kind} of our own"))
}
