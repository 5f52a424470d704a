//! `unfreed tables`: what files' unwind tables hold, and how long they take
//! to build. For benchmarks, and for whoever wonders why stacks end in a file.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracer_ebpf::table::Row;

use crate::cli::args::TablesArgs;
use crate::process::file::{ModuleFile, ModuleFiles};
use crate::report::names::clean;
use crate::report::text;
use crate::unwind::Table;

/// Each table is built this often; the least time counts.
const BUILDS: usize = 3;

/// Prints a line for each file. Nothing goes to the kernel, so no privilege
/// is needed.
///
/// # Errors
/// Names the first file that cannot be read.
pub fn run(args: &TablesArgs) -> Result<ExitCode> {
    let mut files = ModuleFiles::new();
    for path in &args.files {
        let line = describe(&mut files, path)
            .with_context(|| format!("no unwind table of {}", path.display()))?;
        text::print_text(&format!("{}: {line}\n", clean(&path.to_string_lossy())))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(files: &mut ModuleFiles, path: &Path) -> Result<String> {
    let file = files.open_path(path)?;
    let Some((table, time)) = build(&file)? else {
        return Ok("it has no unwind information".to_owned());
    };
    Ok(line(&table, time))
}

/// The table and the least time that it took to build; `None` if the file has
/// no call frame information.
fn build(file: &ModuleFile) -> Result<Option<(Table, Duration)>> {
    let mut least = Duration::MAX;
    let mut last = None;
    for _ in 0..BUILDS {
        let begin = Instant::now();
        last = Table::read(&file.content)?;
        least = least.min(begin.elapsed());
    }
    Ok(last.map(|table| (table, least)))
}

/// What a table holds, for people and for `cargo xtask bench`.
fn line(table: &Table, time: Duration) -> String {
    let (returns, full) = (table.returns.len(), table.full.len());
    format!(
        "{returns} rows for returns, {} bytes; {full} rows for interrupted instructions, {} bytes; \
         built in {:.1} ms; left out: {}",
        returns * size_of::<Row>(),
        full * size_of::<Row>(),
        time.as_secs_f64() * 1e3,
        table.omitted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_table_is_described() {
        let line = describe(&mut ModuleFiles::new(), Path::new("/proc/self/exe")).unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let rows: usize = words[0].parse().unwrap();
        let bytes: usize = words[4].parse().unwrap();
        assert!(rows > 0 && bytes == rows * 8, "{line}");
    }

    #[test]
    fn what_is_no_program_has_no_table() {
        let mut files = ModuleFiles::new();
        assert!(describe(&mut files, Path::new("/dev/null")).is_err());
        assert!(describe(&mut files, Path::new("/etc/passwd")).is_err());
    }
}
