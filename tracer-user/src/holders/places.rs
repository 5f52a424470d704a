//! Where in a sorted list of addresses another one belongs. Where addresses are dense, a table by
//! page says which are to be looked at, and how far into its page the address is, where among these:
//! blocks of a page are of one size, mostly. A search through millions of them would take a miss of
//! the cache for nearly each step, and there is one for each pointer of a heap.

/// A page and a part of memory that has a table, as powers of two, bytes.
const PAGE: u32 = 12;
const PART: u32 = 21;
/// Pages of a part.
const PAGES: usize = 1 << (PART - PAGE);
/// Fewer addresses in a part have no table: so tables take no more than 33 bytes for each address.
const LEAST: usize = 64;
/// Steps from where an address should be to where it is: more are a search.
const NEAR: usize = 4;

/// Tables for addresses that somebody else keeps, ascending.
#[derive(Debug, Default)]
pub struct Places {
    count: usize,
    /// The parts that have tables, ascending.
    parts: Vec<u64>,
    /// For each page of each of them, and behind its last, how many addresses are before it.
    before: Vec<u32>,
}

impl Places {
    /// Of addresses that are sorted.
    pub fn new(addresses: &[u64]) -> Self {
        let mut places = Self {
            count: addresses.len(),
            ..Self::default()
        };
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

    /// How many of the addresses, each of which `is_above` says by its index, are not above one.
    pub fn up_to(&self, address: u64, is_above: impl Fn(usize) -> bool) -> usize {
        let Some((first, last)) = self.bounds(address) else {
            return search(0, self.count, is_above);
        };
        let mut at = first + among(last - first, address);
        for _ in 0..NEAR {
            if at < last && !is_above(at) {
                at += 1;
            } else if at > first && is_above(at - 1) {
                at -= 1;
            } else {
                return at;
            }
        }
        search(first, last, is_above)
    }

    /// How many there may be that are not above an address, by its table alone.
    pub fn guess(&self, address: u64) -> Option<usize> {
        let (first, last) = self.bounds(address)?;
        Some(first + among(last - first, address))
    }

    /// Of which to which it has to be looked for, if there is a table.
    fn bounds(&self, address: u64) -> Option<(usize, usize)> {
        let part = self.parts.binary_search(&(address >> PART)).ok()?;
        let page = (address >> PAGE) % PAGES as u64;
        let at = part * (PAGES + 1) + usize::try_from(page).unwrap_or(0);
        match self.before.get(at..at + 2) {
            Some([first, last]) => Some((*first as usize, *last as usize)),
            _ => None,
        }
    }
}

/// Of so many that lie in a page evenly, how many are not above an address.
fn among(count: usize, address: u64) -> usize {
    let into = usize::try_from(address & ((1 << PAGE) - 1)).unwrap_or(0);
    (count * into) >> PAGE
}

/// Between two indices the first that is above.
fn search(mut first: usize, mut last: usize, is_above: impl Fn(usize) -> bool) -> usize {
    while first < last {
        let middle = first.midpoint(last);
        match is_above(middle) {
            true => last = middle,
            false => first = middle + 1,
        }
    }
    first
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
        // Not evenly: most of a page's are at its end.
        let uneven = (0x7f12_3456_7fc0..0x7f12_3456_8000).step_by(8);
        let all = dense.chain(sparse).chain(other).chain(uneven);
        let mut all: Vec<u64> = all.collect();
        all.sort_unstable();
        all.dedup();
        let places = Places::new(&all);
        assert_eq!(places.parts, [1, 0x7f12_3456_7000 >> PART]);
        let around = all
            .iter()
            .flat_map(|at| [at - 1, *at, at.saturating_add(1)]);
        for address in around.chain([0, 0x20_0000, 0x3f_ffff, 0x40_0000, 0x7f12_3460_0000]) {
            let expected = all.partition_point(|it| *it <= address);
            let found = places.up_to(address, |at| all[at] > address);
            assert_eq!(found, expected, "{address:#x}");
        }
        assert_eq!(Places::new(&[]).up_to(7, |_| false), 0);
    }
}
