//! How much memory the machine has.

use std::fs;

use crate::model::MemoryLimit;

/// All memory, and what of it a program can have without anything being swapped
/// (`MemTotal` and `MemAvailable`, proc_meminfo(5)); `None` if the kernel does not say.
pub fn memory() -> Option<MemoryLimit> {
    parse(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse(text: &str) -> Option<MemoryLimit> {
    let kibibytes = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some(MemoryLimit {
        name: "machine".to_owned(),
        bytes: kibibytes("MemTotal")?.saturating_mul(1024),
        left: kibibytes("MemAvailable")?.saturating_mul(1024),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_both() {
        let limit = memory().unwrap();
        assert!(limit.left <= limit.bytes && limit.bytes > 1 << 20);
        let limit = parse("MemTotal:  100 kB\nMemFree: 7 kB\nMemAvailable:    50 kB\n").unwrap();
        assert_eq!((limit.bytes, limit.left), (102_400, 51_200));
        assert_eq!(parse("MemTotal: 100 kB\n"), None);
    }
}
