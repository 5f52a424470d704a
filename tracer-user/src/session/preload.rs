//! The sampler that a program is started with (`--sampler`): a library of ours, which its
//! loader maps before all others.
//!
//! It is a file in memory that has no name: the program gets it as an open descriptor, and
//! finds it at `/proc/self/fd`. So nothing is left behind, however we end. The program's
//! children get the descriptor too, unless they close what they do not know.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol, ReadCache};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::launch::Expected;
use crate::attach::allocator::{self, Declared};
use crate::attach::sampler::OWN;
use crate::privilege::program::Rights;
use crate::process::bytes::{Bytes, Positioned};
use crate::visible::clean;

/// The library.
static LIBRARY: &[u8] = include_bytes!(env!("UNFREED_SAMPLER"));

/// Where its settings are, in its file (`config.rs` there): the mean interval, and what
/// its random numbers begin with.
const MAGIC: [u64; 2] = [0x6e75_6672_6565_6421, 0x7361_6d70_6c65_7221];

/// A seed of random numbers, for tests.
const SEED: &str = "UNFREED_SAMPLER_SEED";

/// Programs use the numbers below this.
const LEAST_DESCRIPTOR: i32 = 200;

/// The variable by which loaders are told what to map first.
pub const VARIABLE: &str = "LD_PRELOAD";

/// Without this flag, and with another, a file in memory may be none that can be
/// executed (`MFD_EXEC` in `linux/memfd.h`, Linux 6.3).
const EXECUTABLE: MemfdFlags = MemfdFlags::from_bits_retain(0x10);

/// The library as a program gets it.
pub struct Preload {
    file: OwnedFd,
}

impl Preload {
    /// Makes the file, for samples at this mean interval, bytes.
    ///
    /// # Errors
    /// Fails if there are no such files here.
    pub fn new(interval: u64) -> Result<Self> {
        let seed = match std::env::var_os(SEED) {
            None => 0,
            Some(seed) => seed
                .to_str()
                .and_then(|seed| seed.parse().ok())
                .with_context(|| format!("{SEED} is no number"))?,
        };
        let image = with_settings(LIBRARY, interval, seed)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create(OWN, flags | EXECUTABLE)
            .or_else(|_| memfd_create(OWN, flags))
            .context("cannot make a file in memory for the sampler")?;
        let mut rest = &image[..];
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)?;
            rest = &rest[written..];
        }
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Self {
            file: fcntl_dupfd_cloexec(&file, LEAST_DESCRIPTOR)?,
        })
    }

    /// What the variable is to be, if it was `before`: ours comes first, since it stands
    /// before an allocator that is preloaded too.
    pub fn variable(&self, before: Option<&OsStr>) -> OsString {
        let mut all = OsString::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        if let Some(before) = before.filter(|before| !before.is_empty()) {
            all.push(":");
            all.push(before);
        }
        all
    }

    /// In the child: has the program keep the file. Only makes a system call.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn hand_over(&self) -> io::Result<()> {
        Ok(fcntl_setfd(self.file.as_fd(), FdFlags::empty())?)
    }
}

/// The library with settings written into it.
fn with_settings(library: &[u8], interval: u64, seed: u64) -> Result<Vec<u8>> {
    let magic: Vec<u8> = MAGIC.iter().flat_map(|word| word.to_le_bytes()).collect();
    let at = memchr::memmem::find(library, &magic).context("the sampler has no settings")?;
    let mut image = library.to_vec();
    let settings = image
        .get_mut(at + magic.len()..at + magic.len() + 16)
        .context("the sampler's settings are cut")?;
    settings[..8].copy_from_slice(&interval.to_le_bytes());
    settings[8..].copy_from_slice(&seed.to_le_bytes());
    Ok(image)
}

/// Whether a program can be started with the sampler. `expected` are the files that it
/// will map.
///
/// # Errors
/// Says why not.
pub fn check(expected: &[Expected], declared: &[Declared], rights: &Rights) -> Result<()> {
    const INSTEAD: &str = "without --sampler it can be traced";
    let Some(program) = expected.iter().find(|file| file.is_program) else {
        bail!(
            "the program cannot be read, so it is not known whether a sampler can be preloaded; {INSTEAD}"
        );
    };
    let path = clean(&program.path);
    if !has_loader(&program.file.content) {
        bail!("{path} is linked statically: it has no loader that could map a sampler; {INSTEAD}");
    }
    if let Some(why) = is_raised(Path::new(&program.path), rights) {
        bail!("{path} {why}: its loader maps nothing that others name, so no sampler; {INSTEAD}");
    }
    let own = allocator::in_file(&program.file, &program.path, true, declared)
        .ok()
        .and_then(allocator::InFile::allocator);
    let malloc = own.iter().flat_map(|own| &own.functions).next();
    if let Some(function) = malloc {
        bail!(
            "{path} has an allocator of its own in it ({}), which no preloaded library stands before; {INSTEAD}",
            clean(&function.symbol)
        );
    }
    let mut libraries = expected.iter().filter(|file| !file.is_program);
    if !libraries.any(|file| exports(&file.file.content, "dlsym")) {
        bail!(
            "the C library is older than glibc 2.34: it does not tell a sampler where its functions are; {INSTEAD}"
        );
    }
    Ok(())
}

/// Whether an ELF file has a loader.
fn has_loader(bytes: &dyn Bytes) -> bool {
    let cache = ReadCache::new(Positioned::new(bytes));
    let Ok(header) = FileHeader64::<Endianness>::parse(&cache) else {
        return false;
    };
    let Ok(endian) = header.endian() else {
        return false;
    };
    let segments = header.program_headers(endian, &cache).unwrap_or_default();
    segments
        .iter()
        .any(|segment| segment.p_type(endian) == PT_INTERP)
}

/// Whether a file exports a function.
fn exports(bytes: &dyn Bytes, name: &str) -> bool {
    let cache = ReadCache::new(Positioned::new(bytes));
    let file = object::File::parse(&cache);
    file.is_ok_and(|file| {
        let mut symbols = file.dynamic_symbols();
        symbols.any(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
    })
}

/// How a program gets other rights than its caller's, if it does: then its loader trusts
/// no variable of the caller's (`ld.so(8)`, secure-execution mode).
fn is_raised(program: &Path, rights: &Rights) -> Option<&'static str> {
    const SET_USER: u32 = 0o4000;
    const SET_GROUP: u32 = 0o2000;
    let file = std::fs::metadata(program).ok()?;
    let (user, group) = rights.ids();
    let mut none = [0_u8; 0];
    let capabilities = rustix::fs::getxattr(program, "security.capability", &mut none[..]);
    match () {
        () if file.mode() & SET_USER != 0 && file.uid() != user => Some("is set-user-ID"),
        () if file.mode() & SET_GROUP != 0 && file.gid() != group => Some("is set-group-ID"),
        () if user != 0 && capabilities.is_ok() => Some("has capabilities of its own"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_into_the_library() {
        let image = with_settings(LIBRARY, 12_345, 7).unwrap();
        assert_eq!(image.len(), LIBRARY.len());
        let changed = LIBRARY
            .iter()
            .zip(&image)
            .filter(|(one, other)| one != other);
        assert!(changed.count() <= 16);
        assert!(with_settings(b"nothing", 1, 1).is_err());
    }

    /// What it needs is in every program: it names no library.
    #[test]
    fn the_library_needs_no_other() {
        assert!(object::File::parse(LIBRARY).is_ok());
        let needed = |name: &str| memchr::memmem::find(LIBRARY, name.as_bytes()).is_some();
        assert!(!needed("libc.so") && !needed("libgcc_s"));
        for name in ["malloc", "free", "realloc", "_Znwm", "_ZdlPvm"] {
            assert!(exports(&LIBRARY, name), "{name}");
        }
        assert!(!exports(&LIBRARY, "rust_eh_personality"));
    }

    #[test]
    fn ours_comes_first_of_what_is_preloaded() {
        let preload = Preload::new(1).unwrap();
        let own = preload.variable(None);
        assert!(own.to_str().unwrap().starts_with("/proc/self/fd/2"));
        let mut both = own.clone();
        both.push(":/usr/lib/libother.so");
        assert_eq!(
            preload.variable(Some("/usr/lib/libother.so".as_ref())),
            both
        );
        assert_eq!(preload.variable(Some("".as_ref())), own);
    }

    #[test]
    fn programs_without_a_loader_are_told_apart() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(has_loader(&&own[..]));
        assert!(!has_loader(&LIBRARY));
        assert!(!has_loader(&&b"#!/bin/sh"[..]));
    }
}
