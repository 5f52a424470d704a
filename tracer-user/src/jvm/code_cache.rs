//! The code cache: from an address to the blob that has it.

use super::layout::Layout;
use super::memory::TargetMemory;
use super::places::CodeHeap;
use super::unnamed::Unnamed;

/// A segment that belongs to no block.
const FREE: u8 = 0xff;

/// Steps back in a segment map. One leads at most 254 segments back, but
/// blocks that were joined are not always numbered anew.
const MAX_HOPS: usize = 4096;

/// What is read of a segment map at once, bytes before the segment.
const WINDOW: u64 = 512;

/// The longest name of a blob, bytes.
const MAX_NAME: usize = 256;

/// What a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobKind {
    /// A compiled method.
    Method,
    /// The call of a native method.
    NativeWrapper,
    /// Anything else: stubs, adapters, the interpreter; by its name.
    Stub(String),
}

/// A `CodeBlob` that is in use.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Its address.
    pub start: u64,
    /// Its first bytes: all fields of a `nmethod`, if it is as long.
    pub header: Vec<u8>,
}

impl Blob {
    /// Finds the blob of an address.
    ///
    /// # Errors
    /// [`Unnamed::NoCode`] if there is none.
    pub fn at(
        memory: &dyn TargetMemory,
        layout: &Layout,
        heaps: &[CodeHeap],
        pc: u64,
    ) -> Result<Blob, Unnamed> {
        let heap = heaps.iter().find(|heap| heap.reserved.contains(&pc));
        let heap = heap.ok_or(Unnamed::NoCode)?;
        let segment = first_segment(memory, heap, pc)?;
        let block = heap.reserved.start + (segment << heap.log2_segment_size);
        let before = layout.block.size as usize;
        // At the heap's end, less than a method's fields may be mapped.
        let mut bytes = memory
            .vec(block, before + layout.nmethod.header_size as usize)
            .or_else(|_| memory.vec(block, 1 << heap.log2_segment_size))?;
        let used = layout.block.used.of(&bytes).unwrap_or_default();
        let length = layout.block.length.of(&bytes).unwrap_or_default();
        let length = u64::try_from(length).unwrap_or_default() << heap.log2_segment_size;
        let room = heap.reserved.end - block;
        if used & 0xff == 0 || pc - block >= length || length > room || bytes.len() < before {
            return Err(Unnamed::NoCode);
        }
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(Blob {
            start: block + before as u64,
            header: bytes.split_off(before),
        })
    }

    /// What it is, by the name that the VM gave it.
    ///
    /// # Errors
    /// Fails if the name cannot be read.
    pub fn kind(&self, memory: &dyn TargetMemory, layout: &Layout) -> Result<BlobKind, Unnamed> {
        let name = super::layout::pointer(&self.header, layout.blob.name);
        let name = memory.c_string(name.ok_or(Unnamed::NoCode)?, MAX_NAME)?;
        let name = String::from_utf8_lossy(&name);
        Ok(match &*name {
            "nmethod" => BlobKind::Method,
            "native nmethod" => BlobKind::NativeWrapper,
            _ if name.chars().any(char::is_control) => return Err(Unnamed::NoCode),
            stub => BlobKind::Stub(stub.to_owned()),
        })
    }
}

/// The segment at which the block begins that has an address.
fn first_segment(memory: &dyn TargetMemory, heap: &CodeHeap, pc: u64) -> Result<u64, Unnamed> {
    let mut segment = (pc - heap.reserved.start) >> heap.log2_segment_size;
    let (mut start, mut window) = (segment, Vec::new());
    for _ in 0..MAX_HOPS {
        if segment < start || window.is_empty() {
            start = segment.saturating_sub(WINDOW - 1);
            let length = usize::try_from(segment - start + 1).unwrap_or_default();
            window = memory.vec(heap.segment_map.wrapping_add(start), length)?;
        }
        let place = usize::try_from(segment - start).unwrap_or_default();
        match window.get(place) {
            Some(0) => return Ok(segment),
            None | Some(&FREE) => return Err(Unnamed::NoCode),
            Some(&back) => {
                segment = segment.checked_sub(back.into()).ok_or(Unnamed::NoCode)?;
            }
        }
    }
    Err(Unnamed::NoCode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::tests::synthetic::Synthetic;

    const CODE: u64 = 0x7f00_0000_0000;
    const MAP: u64 = 0x7f10_0000_0000;

    fn heap() -> CodeHeap {
        CodeHeap {
            reserved: CODE..CODE + 0x40_0000,
            segment_map: MAP,
            log2_segment_size: 7,
        }
    }

    fn segment(map: &[u8], of: u64) -> Result<u64, Unnamed> {
        let mut memory = Synthetic::default();
        memory.put(MAP, map);
        first_segment(&memory, &heap(), CODE + of * 128 + 5)
    }

    #[test]
    fn steps_lead_back_to_the_first_segment() {
        let mut map = vec![FREE, 0, 1, 2, 3, 0, 1];
        assert_eq!(segment(&map, 4), Ok(1));
        assert_eq!(segment(&map, 5), Ok(5));
        assert_eq!(segment(&map, 6), Ok(5));
        // By single steps, across several windows.
        map.extend(std::iter::repeat_n(1, 2000));
        assert_eq!(segment(&map, 2000), Ok(5));
    }

    #[test]
    fn free_and_hostile_maps_end() {
        assert_eq!(segment(&[FREE; 9], 4), Err(Unnamed::NoCode));
        assert_eq!(segment(&[3; 9], 4), Err(Unnamed::NoCode));
        assert_eq!(segment(&[1; 9000], 8000), Err(Unnamed::NoCode));
        assert_eq!(segment(&[0; 3], 4), Err(Unnamed::Unreadable));
    }
}
