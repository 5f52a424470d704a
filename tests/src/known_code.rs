//! Whether a tracer has told the kernel of the code that a process has mapped:
//! from then on its stacks are whole.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result};
use tracer_ebpf::table::{Code, RangeKind, Replaced, Space};
use tracer_ebpf::{Record, read_record, table};

use crate::{KernelMap, wait_until};

/// Waits until a tracer, by its process id, has told the kernel of all
/// code in a process that is a file's or a copy of it, and looks at none of it again.
///
/// # Errors
/// The process or the tracer is gone, or it takes too long.
pub fn wait_known(tracer: u32, pid: u32) -> Result<()> {
    let maps = Maps::of(tracer)?;
    wait_until("the code to be known", || {
        Ok(maps.know_all(pid)?.then_some(()))
    })
}

/// The maps with what is known of code.
struct Maps {
    processes: KernelMap,
    code_of: KernelMap,
    replaced: KernelMap,
    spaces: KernelMap,
    ranges: KernelMap,
}

impl Maps {
    fn of(tracer: u32) -> Result<Self> {
        let map = |name| KernelMap::of(tracer, name);
        Ok(Self {
            processes: map("PROCESSES")?,
            code_of: map("CODE_OF")?,
            replaced: map("REPLACED")?,
            spaces: map("SPACES")?,
            ranges: map("RANGES")?,
        })
    }

    fn know_all(&self, pid: u32) -> Result<bool> {
        // The image is the first word of a process.
        let image: u64 = match read(&self.processes, &pid.to_ne_bytes())? {
            Some(image) => image,
            None => return Ok(false),
        };
        let key = image.to_ne_bytes();
        let code: Code = read(&self.code_of, &key)?.unwrap_or_default();
        let replaced: Replaced = read(&self.replaced, &key)?.unwrap_or_default();
        if code.space == 0 || u64::from(code.as_of) != replaced.count {
            return Ok(false);
        }
        let space: Space = read(&self.spaces, &code.space.to_ne_bytes())?.unwrap_or_default();
        let mut known = Vec::new();
        for index in space.first..space.first + space.len {
            let range = read::<table::Range>(&self.ranges, &index.to_ne_bytes())?;
            let is_known = |range: &table::Range| range.kind != RangeKind::Pending as u32;
            known.extend(range.filter(is_known).map(|range| range.start..range.end));
        }
        let is_known = |code: &Range<u64>| {
            known
                .iter()
                .any(|range| range.start <= code.start && code.end <= range.end)
        };
        Ok(mapped_code(pid)?.iter().all(is_known))
    }
}

fn read<T: Record>(map: &KernelMap, key: &[u8]) -> Result<Option<T>> {
    Ok(map.find(key)?.and_then(|value| read_record(&value)))
}

/// The code that a process has mapped, of files, or that was copied from one.
fn mapped_code(pid: u32) -> Result<Vec<Range<u64>>> {
    let path = format!("/proc/{pid}/maps");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let is_code = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|flags| flags.contains('x'))
            && match fields.get(5) {
                Some(name) => name.starts_with('/'),
                None => fields.get(1) == Some(&"r-xp"),
            }
    };
    text.lines()
        .filter(is_code)
        .map(|line| {
            let (range, _) = line.split_once(' ').context("no range")?;
            let (start, end) = range.split_once('-').context("no end")?;
            Ok(u64::from_str_radix(start, 16)?..u64::from_str_radix(end, 16)?)
        })
        .collect()
}
