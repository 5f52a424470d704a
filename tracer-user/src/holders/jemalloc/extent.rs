//! What jemalloc says of a piece of its memory (`edata_t` in edata.h, of 5.3), and of the
//! blocks that are in one of small ones, a slab (`bin_info_t` in bin_info.h).

use std::ops::Range;

use super::super::memory::Words;
use crate::process::pagemap::PAGE;

/// An `edata_t`, bytes and words.
pub const BYTES: usize = WORDS * 8;
const WORDS: usize = 16;
/// Where in it is what, in words: its bits, its address, its size, and of a slab the bits of
/// its free blocks.
const ADDRESS: usize = 1;
const SIZE: usize = 2;
const FREE: usize = 8;
/// Which of its bits say that it is a slab, and where its state and its class begin.
const SLAB_BIT: u32 = 12;
const STATE_BIT: u32 = 17;
const CLASS_BIT: u32 = 20;

/// A `bin_info_t`, bytes.
const BIN: u64 = 40;
/// Classes of small blocks: there are 36 or 39, by how jemalloc was built.
const BINS: Range<usize> = 16..64;
/// The smallest class, bytes.
pub const SMALLEST: u64 = 8;
/// The most blocks of a slab.
const MAX_REGIONS: u64 = 512;

/// A word of a leaf of the tree of pages, of 48 bits of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// Where the extent is described that the page is in.
    pub const fn place(self) -> u64 {
        self.0 & 0xffff_ffff_ff80
    }

    const fn class(self) -> u64 {
        self.0 >> 48
    }

    const fn is_slab(self) -> bool {
        self.0 & 1 != 0
    }
}

/// Small blocks of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bin {
    /// Bytes of a block.
    block: u64,
    /// Bytes of a slab.
    slab: u64,
}

impl Bin {
    /// All classes, if their table begins here: it is known by what its rows must be.
    pub fn all(words: &mut Words<'_>, start: u64) -> Option<Vec<Self>> {
        let mut bins: Vec<Self> = Vec::new();
        while bins.len() < BINS.end {
            let row = start.checked_add(bins.len() as u64 * BIN)?;
            let Some(bin) = Self::read(words, row) else {
                break;
            };
            if bins.last().is_some_and(|last| last.block >= bin.block) {
                break;
            }
            bins.push(bin);
        }
        let is_first = bins.first().is_some_and(|bin| bin.block == SMALLEST);
        (is_first && BINS.contains(&bins.len())).then_some(bins)
    }

    fn read(words: &mut Words<'_>, row: u64) -> Option<Self> {
        let block = words.get(row)?;
        let slab = words.get(row.checked_add(8)?)?;
        // With the number of shards in the upper half.
        let count = words.get(row.checked_add(16)?)? & u64::from(u32::MAX);
        let bits = words.get(row.checked_add(24)?)?;
        let groups = words.get(row.checked_add(32)?)?;
        let holds = (1..=MAX_REGIONS).contains(&count)
            && block.is_multiple_of(8)
            && slab.is_multiple_of(PAGE)
            && block.checked_mul(count) == Some(slab)
            && bits == count
            && groups == count.div_ceil(64);
        (holds && block > 0).then_some(Self { block, slab })
    }
}

/// A piece of memory that is a large block, a slab of small ones, or free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Its pages.
    pub pages: Range<u64>,
    /// Where a large block begins, in its first page.
    first: u64,
    /// The class of what is in it.
    class: u64,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Large,
    /// With a bit for each block that is free.
    Slab([u64; WORDS - FREE]),
    Free,
}

impl Extent {
    /// The extent that a page is in, by what is said of it; `None` if that contradicts itself.
    pub fn parse(bytes: &[u8], entry: Entry, page: u64) -> Option<Self> {
        let (words, _) = bytes.as_chunks();
        let mut words = words.iter().copied().map(u64::from_le_bytes);
        let words: [u64; WORDS] = std::array::from_fn(|_| words.next().unwrap_or_default());
        let bits = words[0];
        let start = words[ADDRESS] / PAGE * PAGE;
        let end = start.checked_add(words[SIZE] / PAGE * PAGE)?;
        let class = bits >> CLASS_BIT & 0xff;
        let is_slab = bits >> SLAB_BIT & 1 != 0;
        let is_it = (start..end).contains(&page)
            && class == entry.class()
            && is_slab == entry.is_slab()
            && (!is_slab || words[ADDRESS] == start);
        let kind = match (bits >> STATE_BIT & 7, is_slab) {
            (0, false) => Kind::Large,
            (0, true) => Kind::Slab(std::array::from_fn(|at| words[FREE + at])),
            // It is kept to be used again, or on its way from one state to another.
            _ => Kind::Free,
        };
        is_it.then_some(Self {
            pages: start..end,
            first: words[ADDRESS],
            class,
            kind,
        })
    }

    /// The blocks in it that are in use, or in a thread's cache, each with its class; `None` if
    /// a slab has not the size of its class.
    pub fn blocks(&self, bins: &[Bin]) -> Option<Vec<(Range<u64>, u64)>> {
        let free = match &self.kind {
            Kind::Free => return Some(Vec::new()),
            Kind::Large => return Some(vec![(self.first..self.pages.end, self.class)]),
            Kind::Slab(free) => free,
        };
        let bin = bins.get(usize::try_from(self.class).ok()?)?;
        if self.pages.end - self.pages.start != bin.slab {
            return None;
        }
        let bits = free
            .iter()
            .flat_map(|word| (0..64).map(move |bit| word >> bit & 1));
        let blocks = (0..bin.slab / bin.block).zip(bits);
        let used = blocks.filter_map(|(number, is_free)| (is_free == 0).then_some(number));
        let block = |number| {
            let start = self.pages.start + number * bin.block;
            (start..start + bin.block, self.class)
        };
        Some(used.map(block).collect())
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::super::memory::tests::Written;
    use super::*;

    /// Classes of 8, 16, 32, 48 … bytes, in slabs with whole numbers of them.
    pub fn put_bins(memory: &mut Written, start: u64) {
        for class in 0..36 {
            let block = if class < 2 { 8 << class } else { class * 16 };
            let mut slab = PAGE;
            while !slab.is_multiple_of(block) {
                slab += PAGE;
            }
            let count = slab / block;
            let row = [block, slab, count | 1 << 32, count, count.div_ceil(64)];
            for (at, word) in (0..).zip(row) {
                memory.put(start + class * BIN + at * 8, word);
            }
        }
    }

    /// An `edata_t` of a state, and the entry that leads to it.
    pub fn put_extent(
        memory: &mut Written,
        place: u64,
        (start, size): (u64, u64),
        (class, is_slab, state): (u64, bool, u64),
    ) -> Entry {
        let slab = u64::from(is_slab);
        memory.put(
            place,
            slab << SLAB_BIT | state << STATE_BIT | class << CLASS_BIT,
        );
        memory.put(place + 8, start);
        memory.put(place + 16, size);
        Entry(class << 48 | place | state << 2 | slab)
    }

    const TABLE: u64 = 16 * PAGE;

    fn bins() -> Vec<Bin> {
        let mut memory = Written::new(TABLE..TABLE + PAGE);
        put_bins(&mut memory, TABLE);
        let present = memory.present();
        let mut words = Words::new(&memory, &present);
        assert_eq!(Bin::all(&mut words, TABLE + BIN * 2), None, "no small one");
        Bin::all(&mut words, TABLE).unwrap()
    }

    /// What is said of three pages at an address, as bytes.
    fn said(free: &[u64], kind: (u64, bool, u64)) -> (Vec<u8>, Entry) {
        let mut memory = Written::new(TABLE..TABLE + PAGE);
        let entry = put_extent(&mut memory, TABLE, (64 * PAGE, 3 * PAGE), kind);
        for (at, word) in (0..).zip(free) {
            memory.put(TABLE + 64 + at * 8, *word);
        }
        (memory.1, entry)
    }

    #[test]
    fn a_table_of_classes_is_known_by_its_rows() {
        let bins = bins();
        assert_eq!(bins.len(), 36);
        let three = Bin {
            block: 48,
            slab: 3 * PAGE,
        };
        assert_eq!(bins[3], three);
    }

    #[test]
    fn blocks_of_a_slab_are_those_that_are_not_free() {
        let (bytes, entry) = said(&[u64::MAX - 5, u64::MAX, u64::MAX, u64::MAX], (3, true, 0));
        let extent = Extent::parse(&bytes, entry, 65 * PAGE).unwrap();
        let start = 64 * PAGE;
        let expected = [start..start + 48, start + 96..start + 144];
        let blocks = extent.blocks(&bins()).unwrap();
        assert_eq!(blocks, expected.map(|block| (block, 3)));
    }

    #[test]
    fn a_large_block_begins_anywhere_in_its_first_page() {
        let (mut bytes, entry) = said(&[], (40, false, 0));
        bytes[8..16].copy_from_slice(&(64 * PAGE + 320).to_le_bytes());
        let extent = Extent::parse(&bytes, entry, 66 * PAGE).unwrap();
        let blocks = extent.blocks(&bins()).unwrap();
        assert_eq!(blocks, [(64 * PAGE + 320..67 * PAGE, 40)]);
    }

    #[test]
    fn what_is_free_has_no_blocks() {
        for state in 1..8 {
            let (bytes, entry) = said(&[], (40, false, state));
            let extent = Extent::parse(&bytes, entry, 64 * PAGE).unwrap();
            assert_eq!(extent.blocks(&bins()), Some(Vec::new()));
        }
    }

    #[test]
    fn what_contradicts_itself_is_none() {
        let (bytes, entry) = said(&[], (3, true, 0));
        assert_eq!(Extent::parse(&bytes, entry, 63 * PAGE), None);
        assert_eq!(Extent::parse(&bytes, entry, 67 * PAGE), None);
        let other = Entry(entry.0 ^ 1);
        assert_eq!(Extent::parse(&bytes, other, 64 * PAGE), None);
        let other = Entry(entry.0 ^ 1 << 48);
        assert_eq!(Extent::parse(&bytes, other, 64 * PAGE), None);
        assert_eq!(Extent::parse(&bytes[..8], entry, 64 * PAGE), None);
        // A class of slabs of another size, and one that there is not.
        for class in [2, 200] {
            let (bytes, entry) = said(&[], (class, true, 0));
            let extent = Extent::parse(&bytes, entry, 64 * PAGE).unwrap();
            assert_eq!(extent.blocks(&bins()), None);
        }
    }
}
