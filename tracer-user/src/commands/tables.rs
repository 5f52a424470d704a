//! `unfreed tables`: what files' unwind tables hold, and how long they take
//! to build. For benchmarks, and for whoever wonders why stacks end in a file.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracer_ebpf::table::Row;

use crate::cli::args::TablesArgs;
use crate::privilege::capability::Phase;
use crate::process::file::{ModuleFile, ModuleFiles};
use crate::report::text;
use crate::tables::is_held;
use crate::unwind::Table;
use crate::visible::clean;

/// Each table is built this often; the least time counts.
const BUILDS: usize = 3;

/// Prints a line for each file, as if it were the only one. Nothing goes to
/// the kernel, so no privilege is needed.
///
/// # Errors
/// Names the first file that cannot be read.
pub fn run(args: &TablesArgs) -> Result<ExitCode> {
    Phase::Looking.start()?;
    let room = u32::try_from(args.max_rows)?;
    let mut files = ModuleFiles::new();
    for path in &args.files {
        let line = describe(&mut files, path, room)
            .with_context(|| format!("no unwind table of {}", path.display()))?;
        text::print_text(&format!("{}: {line}\n", clean(&path.to_string_lossy())))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(files: &mut ModuleFiles, path: &Path, room: u32) -> Result<String> {
    let file = files.open_path(path)?;
    Ok(match build(&file, path)? {
        Some((table, time)) => line(&table, time, room),
        None => "it has no unwind information".to_owned(),
    })
}

/// The table and the least time that it took to build; `None` if the file has
/// no call frame information.
fn build(file: &ModuleFile, path: &Path) -> Result<Option<(Table, Duration)>> {
    let mut least = Duration::MAX;
    let mut last = None;
    for _ in 0..BUILDS {
        let begin = Instant::now();
        last = Table::read(&file.content, path)?;
        least = least.min(begin.elapsed());
    }
    Ok(last.map(|table| (table, least)))
}

/// What a table holds, for people and for `cargo xtask bench`.
fn line(table: &Table, time: Duration, room: u32) -> String {
    let (returns, full) = (table.returns.len(), table.full.len());
    let held = is_held(
        &table.full,
        room.saturating_sub(u32::try_from(returns).unwrap_or(room)),
    );
    format!(
        "{returns} rows for returns, {full} {}for interrupted instructions, \
         {} bytes in the kernel, built in {:.1} ms, left out: {}",
        if held { "" } else { "(too many to be held) " },
        (returns + if held { full } else { 0 }) * size_of::<Row>(),
        time.as_secs_f64() * 1e3,
        table.omitted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_table_is_described() {
        let describe = |room| {
            let own = Path::new("/proc/self/exe");
            describe(&mut ModuleFiles::new(), own, room).unwrap()
        };
        let numbers = |line: &str| -> Vec<usize> {
            let words = line.split(' ');
            words.filter_map(|word| word.parse().ok()).collect()
        };
        let line = describe(u32::MAX);
        let [returns, full, bytes] = numbers(&line)[..3] else {
            panic!("{line}");
        };
        assert!(returns > 0 && bytes == (returns + full) * 8, "{line}");
        let tight = describe(u32::try_from(returns + full).unwrap());
        assert_eq!(numbers(&tight)[2], returns * 8, "{tight}");
    }

    #[test]
    fn what_is_no_program_has_no_table() {
        let mut files = ModuleFiles::new();
        for path in ["/dev/null", "/etc/passwd", "/nowhere"] {
            assert!(describe(&mut files, Path::new(path), 16).is_err(), "{path}");
        }
    }
}
