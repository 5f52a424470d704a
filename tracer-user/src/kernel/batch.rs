//! Reading and deleting many entries of a hash map in one system call
//! (`BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_DELETE_BATCH`, kernel 5.6).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use tracer_ebpf::Record;

use super::syscall;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// Entries asked for at once, at most.
const BATCH: usize = 8192;

/// Bytes of them, at most, unless they are few.
const BATCH_BYTES: usize = 1 << 20;

/// How often the kernel may refuse to go on while a program that it has put
/// aside holds a part of the map: each time it has a moment to finish.
const REFUSALS: usize = 1_000;

/// Whether the kernel could not take a lock: `EBUSY` from 5.11 on, the others
/// from 6.16 on. What it had done until then stands.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EDEADLK | libc::ETIMEDOUT)
    )
}

/// The part of `union bpf_attr` that batch commands use (`linux/bpf.h`).
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Calls `each` with every entry of the map. Entries that come or go while
/// this runs may or may not be seen.
///
/// # Errors
/// Fails if the kernel does.
pub fn for_each<K: Record, V: Record>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(K, V),
) -> Result<()> {
    let most = BATCH_BYTES / (size_of::<K>() + size_of::<V>());
    let mut capacity = most.clamp(64, BATCH);
    let mut position: Option<u64> = None;
    let mut refusals = 0;
    let mut keys = vec![0u8; capacity * size_of::<K>()];
    let mut values = vec![0u8; capacity * size_of::<V>()];
    loop {
        let mut next = 0u64;
        let mut attributes = BatchAttributes {
            in_batch: position
                .as_ref()
                .map_or(0, |at| std::ptr::from_ref(at) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(capacity)?,
            map: map.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        let mut error = call(BPF_MAP_LOOKUP_BATCH, &mut attributes).err();
        if refusals < REFUSALS && error.as_ref().is_some_and(is_refusal) {
            refusals += 1;
            error = None;
            std::thread::yield_now();
        }
        match error.as_ref().and_then(io::Error::raw_os_error) {
            None | Some(libc::ENOENT) => {}
            // One bucket alone holds more than was asked for.
            Some(libc::ENOSPC) if capacity < BATCH * 64 => {
                capacity *= 2;
                keys.resize(capacity * size_of::<K>(), 0);
                values.resize(capacity * size_of::<V>(), 0);
                continue;
            }
            Some(_) => {
                return Err(error.unwrap_or_else(|| io::ErrorKind::Other.into()))
                    .context("cannot read a kernel map");
            }
        }
        let read = (attributes.count as usize).min(capacity);
        for index in 0..read {
            let key = tracer_ebpf::read_record(&keys[index * size_of::<K>()..]);
            let value = tracer_ebpf::read_record(&values[index * size_of::<V>()..]);
            if let (Some(key), Some(value)) = (key, value) {
                each(key, value);
            }
        }
        if error.is_some() {
            return Ok(());
        }
        position = Some(next);
    }
}

/// Deletes entries; those that are gone already are no error.
///
/// # Errors
/// Fails if the kernel does.
pub fn delete<K: Record>(map: BorrowedFd<'_>, keys: &[K]) -> Result<()> {
    let (mut done, mut refusals) = (0, 0);
    while done < keys.len() {
        let mut attributes = BatchAttributes {
            in_batch: 0,
            out_batch: 0,
            keys: keys[done..].as_ptr() as u64,
            values: 0,
            count: u32::try_from(keys.len() - done)?,
            map: map.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        match call(BPF_MAP_DELETE_BATCH, &mut attributes) {
            Ok(()) => return Ok(()),
            // Stopped at a key that is not there: go on behind it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                done += attributes.count as usize + 1;
            }
            Err(error) if refusals < REFUSALS && is_refusal(&error) => {
                done += attributes.count as usize;
                refusals += 1;
                std::thread::yield_now();
            }
            Err(error) => return Err(error).context("cannot delete from a kernel map"),
        }
    }
    Ok(())
}

/// Enters one key; `flags` are `bpf_map_update_elem`'s.
///
/// # Errors
/// Fails if the kernel does.
pub fn insert<K: Record, V: Record>(
    map: BorrowedFd<'_>,
    key: K,
    value: V,
    flags: u32,
) -> io::Result<()> {
    let mut attributes =
        ElementAttributes::of(map, &key, (&raw const value) as u64, u64::from(flags));
    // SAFETY: the attributes are of the kernel's layout and point to locals.
    unsafe { syscall::bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// The value of a key, if it is there.
///
/// # Errors
/// Fails if the kernel does.
pub fn find<K: Record, V: Record + Default>(map: BorrowedFd<'_>, key: &K) -> Result<Option<V>> {
    let mut value = V::default();
    let mut attributes = ElementAttributes::of(map, key, (&raw mut value) as u64, 0);
    // SAFETY: the attributes are of the kernel's layout and point to a record each, which
    // are what the map has.
    let found = unsafe { syscall::bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) };
    is_there(found)
        .map(|found| found.then_some(value))
        .context("cannot look into a map")
}

/// Removes a key. Whether it was there.
///
/// # Errors
/// Fails if the kernel does.
pub fn remove<K: Record>(map: BorrowedFd<'_>, key: &K) -> Result<bool> {
    let mut attributes = ElementAttributes::of(map, key, 0, 0);
    // SAFETY: as above, without a value.
    let removed = unsafe { syscall::bpf(BPF_MAP_DELETE_ELEM, &mut attributes) };
    is_there(removed).context("cannot remove an entry of a map")
}

fn is_there(status: io::Result<i32>) -> io::Result<bool> {
    match status {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The part of `union bpf_attr` that commands on single elements use.
#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl ElementAttributes {
    /// `value` is the address of one, or 0 where there is none.
    fn of<K: Record>(map: BorrowedFd<'_>, key: &K, value: u64, flags: u64) -> Self {
        Self {
            map: map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: std::ptr::from_ref(key) as u64,
            value,
            flags,
        }
    }
}

fn call(command: libc::c_long, attributes: &mut BatchAttributes) -> io::Result<()> {
    // SAFETY: the attributes are of the kernel's layout and point to buffers
    // of the stated count that outlive the call.
    unsafe { syscall::bpf(command, attributes) }.map(drop)
}
