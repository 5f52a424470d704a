//! The kernel maps of a tracer, to look into and to write what the kernel
//! would write there.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

use crate::KernelObjects;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// The beginning of the kernel's `struct bpf_map_info`.
#[derive(Default)]
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// One map.
#[derive(Debug)]
pub struct KernelMap {
    map: OwnedFd,
    key_size: usize,
    value_size: usize,
}

impl KernelMap {
    /// The map of a tracer with this name.
    ///
    /// # Errors
    /// There is none.
    pub fn of(tracer: u32, name: &str) -> Result<Self> {
        for id in KernelObjects::of_process(tracer)?.maps {
            let descriptor = bpf(BPF_MAP_GET_FD_BY_ID, &mut [id, 0, 0])?;
            // SAFETY: the descriptor was just made and belongs to nobody else.
            let map = unsafe { OwnedFd::from_raw_fd(descriptor) };
            let info = info(&map)?;
            if info.name.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
                return Ok(Self {
                    map,
                    key_size: info.key_size as usize,
                    value_size: info.value_size as usize,
                });
            }
        }
        anyhow::bail!("the tracer has no map {name}")
    }

    /// All keys.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn keys(&self) -> Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.key_size];
            let last = keys.last().map_or(0, |key| key.as_ptr() as u64);
            if !self.element(BPF_MAP_GET_NEXT_KEY, last, &mut next)? {
                return Ok(keys);
            }
            keys.push(next);
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, key: &[u8]) -> Result<Vec<u8>> {
        self.find(key)?
            .with_context(|| format!("no such key: {key:?}"))
    }

    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn find(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        ensure!(key.len() == self.key_size, "a key has {}", self.key_size);
        let mut value = vec![0; self.value_size];
        let is_there = self.element(BPF_MAP_LOOKUP_ELEM, key.as_ptr() as u64, &mut value)?;
        Ok(is_there.then_some(value))
    }

    /// Enters a value.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        ensure!(key.len() == self.key_size, "a key has {}", self.key_size);
        ensure!(value.len() == self.value_size, "of {}", self.value_size);
        let mut value = value.to_vec();
        self.element(BPF_MAP_UPDATE_ELEM, key.as_ptr() as u64, &mut value)?;
        Ok(())
    }

    /// Whether there is such an element.
    fn element(&self, command: libc::c_int, key: u64, value: &mut [u8]) -> Result<bool> {
        let map = u64::from(self.map.as_raw_fd().cast_unsigned());
        // The part of `union bpf_attr` for elements: map, key, value, flags.
        let mut attributes = [map, key, value.as_mut_ptr() as u64, 0];
        match bpf(command, &mut attributes) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("bpf({command})")),
        }
    }
}

fn info(map: &OwnedFd) -> Result<Info> {
    let mut info = Info::default();
    let size = u32::try_from(size_of::<Info>())?;
    let address = (&raw mut info) as u64;
    // Descriptor and length, then the address.
    let head = u64::from(map.as_raw_fd().cast_unsigned()) | u64::from(size) << 32;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut [head, address])?;
    Ok(info)
}

fn bpf<T>(command: libc::c_int, attributes: &mut [T]) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads and writes as many bytes as the attributes
    // have; what they point to lives in the callers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(attributes),
        )
    };
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
