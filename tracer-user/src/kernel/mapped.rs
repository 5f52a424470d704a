//! A kernel array map in this process' memory: read and written without
//! system calls.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use aya::maps::MapData;
use tracer_ebpf::Record;

/// A view of an array map made with `BPF_F_MMAPABLE`.
pub struct MappedArray<T> {
    start: NonNull<u8>,
    bytes: usize,
    len: u32,
    record: PhantomData<T>,
    is_writable: bool,
    /// Programs that are loaded later need the open map.
    _map: MapData,
}

// SAFETY: the mapping belongs to the process, and writing takes `&mut self`.
unsafe impl<T> Send for MappedArray<T> {}

impl<T: Record> MappedArray<T> {
    /// Distance of two elements: the kernel rounds values up to 8 bytes.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps the array behind `map`, which has `len` elements.
    ///
    /// # Errors
    /// Fails if the kernel refuses the mapping.
    pub fn new(map: MapData, len: u32) -> Result<Self> {
        Self::map(map, len, libc::PROT_READ)
    }

    /// The same, to be written too.
    ///
    /// # Errors
    /// See [`MappedArray::new`].
    pub fn writable(map: MapData, len: u32) -> Result<Self> {
        Self::map(map, len, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn map(map: MapData, len: u32, protection: libc::c_int) -> Result<Self> {
        let bytes = (Self::STRIDE * len as usize).next_multiple_of(4096);
        // SAFETY: a fresh shared mapping of a map of at least this size; the
        // kernel checks both.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map a kernel array");
        }
        let start =
            NonNull::new(start.cast()).context("the kernel mapped an array at address 0")?;
        Ok(Self {
            start,
            bytes,
            len,
            record: PhantomData,
            is_writable: protection & libc::PROT_WRITE != 0,
            _map: map,
        })
    }

    /// How many elements there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Where an element is.
    fn element(&self, index: u32) -> Option<NonNull<T>> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the element lies within the mapping.
        let at = unsafe { self.start.byte_add(index as usize * Self::STRIDE) };
        Some(at.cast())
    }

    /// A copy of one element. The kernel may be writing it: each word is
    /// whole, the element as a whole is a snapshot only when nothing traces.
    pub fn get(&self, index: u32) -> Option<T> {
        self.head(index)
    }

    /// The beginning of an element. `H` is what `T` begins with.
    pub fn head<H: Record>(&self, index: u32) -> Option<H> {
        const { assert!(size_of::<H>() <= size_of::<T>(), "it is a part") };
        let element = self.element(index)?.cast::<H>();
        // SAFETY: it lies within the mapping, which lives as long as self; a
        // Record is valid for every bit pattern.
        Some(unsafe { element.read_volatile() })
    }

    /// The first word of an element: what is read after it is as new at least.
    pub fn first_word(&self, index: u32) -> Option<u64> {
        Some(self.word(index)?.load(Ordering::Acquire))
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        const { assert!(size_of::<T>() >= 8, "there is a word") };
        let element = self.element(index)?.cast();
        // SAFETY: the element lies within the mapping, which lives as long as
        // self, and the kernel aligns it to 8 bytes.
        Some(unsafe { AtomicU64::from_ptr(element.as_ptr()) })
    }

    /// Adds to a word of an element, as programs do in the same place; `field` is its
    /// offset in bytes. Does nothing beyond the element.
    pub fn add(&self, index: u32, field: usize, amount: u64) {
        let is_within = field.is_multiple_of(8) && field + 8 <= size_of::<T>();
        if !self.is_writable || !is_within {
            return;
        }
        if let Some(element) = self.element(index) {
            // SAFETY: a word of the element, which lies within the mapping, is aligned
            // to 8 bytes and lives as long as self.
            let word = unsafe { AtomicU64::from_ptr(element.as_ptr().byte_add(field).cast()) };
            word.fetch_add(amount, Ordering::Release);
        }
    }

    /// Writes one element, word by word; does nothing beyond the array's end
    /// or if it was mapped for reading only.
    pub fn set(&mut self, index: u32, value: T) {
        if !self.is_writable {
            return;
        }
        if let Some(element) = self.element(index) {
            // SAFETY: the element lies within the mapping, which is writable and
            // lives as long as self.
            unsafe { element.write_volatile(value) };
        }
    }

    /// Copies of all elements.
    pub fn iter(&self) -> impl Iterator<Item = (u32, T)> + '_ {
        (0..self.len).filter_map(|index| Some((index, self.get(index)?)))
    }
}

impl MappedArray<u64> {
    /// Counts one, as programs do in the same place.
    pub fn count(&self, index: u32) {
        if let Some(word) = self.word(index).filter(|_| self.is_writable) {
            word.fetch_add(1, Ordering::Release);
        }
    }

    /// Counts one less.
    pub fn uncount(&self, index: u32) {
        if let Some(word) = self.word(index).filter(|_| self.is_writable) {
            word.fetch_sub(1, Ordering::Release);
        }
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
