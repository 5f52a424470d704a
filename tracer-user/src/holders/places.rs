//! Where in a sorted list of addresses another one belongs. Where addresses are dense, a table by
//! page says which are to be looked at: a search through millions of them takes a miss of the
//! cache for nearly each step, and there is one for each pointer of a heap.

/// A page and a part of memory that has a table, as powers of two, bytes.
const PAGE: u32 = 12;
const PART: u32 = 21;
/// Pages of a part.
const PAGES: usize = 1 << (PART - PAGE);
/// Fewer addresses in a part have no table: so tables take no more than 33 bytes for each address.
const LEAST: usize = 64;

/// Addresses, ascending.
#[derive(Debug, Default)]
pub struct Places {
    addresses: Vec<u64>,
    /// The parts that have tables, ascending.
    parts: Vec<u64>,
    /// For each page of each of them, and behind its last, how many addresses are before it.
    before: Vec<u32>,
}

impl Places {
    /// Of addresses that are sorted.
    pub fn new(addresses: Vec<u64>) -> Self {
        let mut places = Self::default();
        let mut first = 0;
        for chunk in addresses.chunk_by(|one, other| one >> PART == other >> PART) {
            if let [address, ..] = chunk
                && chunk.len() >= LEAST
                && u32::try_from(first + chunk.len()).is_ok()
            {
                places.add(*address >> PART, first, chunk);
            }
            first += chunk.len();
        }
        places.addresses = addresses;
        places
    }

    fn add(&mut self, part: u64, first: usize, addresses: &[u64]) {
        self.parts.push(part);
        let mut at = 0;
        for page in 0..=PAGES as u64 {
            let start = (part << PART) + (page << PAGE);
            while addresses.get(at).is_some_and(|address| *address < start) {
                at += 1;
            }
            self.before
                .push(u32::try_from(first + at).unwrap_or(u32::MAX));
        }
    }

    /// How many of them are not above an address.
    pub fn up_to(&self, address: u64) -> usize {
        let (first, last) = self.bounds(address);
        let some = self.addresses.get(first..last).unwrap_or_default();
        first + some.partition_point(|it| *it <= address)
    }

    /// Of which to which it has to be looked for.
    fn bounds(&self, address: u64) -> (usize, usize) {
        let all = (0, self.addresses.len());
        let Ok(part) = self.parts.binary_search(&(address >> PART)) else {
            return all;
        };
        let page = (address >> PAGE) % PAGES as u64;
        let at = part * (PAGES + 1) + usize::try_from(page).unwrap_or(0);
        match self.before.get(at..at + 2) {
            Some([first, last]) => (*first as usize, *last as usize),
            _ => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_say_what_a_search_does() {
        // Dense in two parts, one of them full to its end, and a few elsewhere.
        let dense = (0x20_0000..0x40_0000).step_by(4096 / 3);
        let sparse = [0x8, 0x41_0000, 0x7f00_0000_0000, u64::MAX];
        let other = (0x7f12_3456_7000..0x7f12_3457_8000).step_by(48);
        let mut all: Vec<u64> = dense.chain(sparse).chain(other).collect();
        all.sort_unstable();
        let places = Places::new(all.clone());
        assert_eq!(places.parts, [1, 0x7f12_3456_7000 >> PART]);
        let around = all
            .iter()
            .flat_map(|at| [at - 1, *at, at.saturating_add(1)]);
        for address in around.chain([0, 0x20_0000, 0x3f_ffff, 0x40_0000, 0x7f12_3460_0000]) {
            let expected = all.partition_point(|it| *it <= address);
            assert_eq!(places.up_to(address), expected, "{address:#x}");
        }
        assert_eq!(Places::new(Vec::new()).up_to(7), 0);
    }
}
