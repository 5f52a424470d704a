//! The complete report as JSON, written and read back. The fields are those
//! of [`model`](crate::model), whose documentation is the schema's.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::model::reading::bounded;
use crate::model::{Report, SCHEMA};

/// Read of a file at once, bytes.
const BUFFER: usize = 256 << 10;

/// A file up to this length is read before anything of it is understood, bytes.
const AT_ONCE: u64 = 128 << 20;

/// Writes the report as one line.
///
/// # Errors
/// Only those of the writer.
pub fn write(report: &Report, writer: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, report)?;
    writeln!(writer)
}

/// Reads a report, and checks what the exporters rely on.
///
/// # Errors
/// Fails when the text is not JSON, is not a report of this schema, or is
/// inconsistent; the message says which.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Report> {
    /// The one field that every schema has.
    #[derive(Deserialize)]
    struct Head {
        schema: Option<String>,
    }
    let begin = file.stream_position()?;
    let (report, cut) = bounded(|| from::<Report>(file));
    let schema = match &report {
        Ok(report) => Some(report.schema.clone()),
        // What is wrong with it may be that it is another version's.
        Err(_) => {
            file.seek(SeekFrom::Start(begin))?;
            from::<Head>(file).context("not a JSON object")?.schema
        }
    };
    match schema.as_deref() {
        Some(SCHEMA) => {}
        Some(other) => bail!(
            "its schema is `{}`, and this version of unfreed reads `{SCHEMA}`; use the version that wrote it",
            super::names::clean(other)
        ),
        None => bail!("it has no `schema` field: not a report of unfreed"),
    }
    let mut report = report.context("not a complete report")?;
    report.shortened.names += cut;
    check(&report).context("the report is inconsistent")?;
    Ok(report)
}

/// Reads a long text piece by piece, since it may be much longer than what it says, and a
/// short one at once, which takes half the time.
fn from<T: DeserializeOwned>(file: &mut (impl Read + Seek)) -> Result<T> {
    let begin = file.stream_position()?;
    let length = file.seek(SeekFrom::End(0))?.saturating_sub(begin);
    file.seek(SeekFrom::Start(begin))?;
    if length > AT_ONCE {
        let reader = BufReader::with_capacity(BUFFER, file);
        return Ok(serde_json::from_reader(reader)?);
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn check(report: &Report) -> Result<()> {
    let processes = report.processes.len();
    for site in &report.sites {
        let (id, index) = (site.id, site.process);
        ensure!(
            index < processes,
            "site {id} belongs to process {index} of {processes}"
        );
    }
    for module in &report.modules {
        let index = module.process;
        ensure!(
            index < processes,
            "a module belongs to process {index} of {processes}"
        );
    }
    for balance in &report.balance {
        let (pid, index) = (balance.pid, balance.process);
        ensure!(
            index < processes && balance.adds_up(),
            "the balance of process {pid} does not add up, or it is process {index} of {processes}"
        );
    }
    for (what, value) in [
        (
            "live_bytes",
            (|site| site.live_bytes) as fn(&crate::model::Site) -> u64,
        ),
        ("live_count", |site| site.live_count),
        ("allocated_bytes", |site| site.allocated_bytes),
        ("allocated_count", |site| site.allocated_count),
    ] {
        let sum = report
            .sites
            .iter()
            .map(value)
            .try_fold(0_u64, u64::checked_add);
        ensure!(
            sum.is_some_and(|sum| i64::try_from(sum).is_ok()),
            "the sum of {what} is above 2^63"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::report::sample;

    fn written(report: &Report) -> Vec<u8> {
        let mut text = Vec::new();
        write(report, &mut text).unwrap();
        text
    }

    fn error(text: &[u8]) -> String {
        format!("{:#}", read(&mut Cursor::new(text)).unwrap_err())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let report = sample::report();
        assert_eq!(read(&mut Cursor::new(written(&report))).unwrap(), report);
    }

    #[test]
    fn another_schema_is_named() {
        let error = error(br#"{"schema":"unfreed/9","sites":7}"#);
        assert!(
            error.contains("`unfreed/9`") && error.contains("`unfreed/1`"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_report_is_told_apart() {
        assert!(error(b"[1]").contains("not a JSON object"));
        assert!(error(b"{}").contains("no `schema` field"));
        assert!(error(br#"{"schema":"unfreed/1"}"#).contains("missing field"));
        let whole = written(&sample::report());
        assert!(error(&whole[..whole.len() / 2]).contains("EOF"));
    }

    #[test]
    fn indices_and_sums_are_checked() {
        let mut report = sample::report();
        report.sites[1].process = 5;
        assert!(error(&written(&report)).contains("site 2 belongs to process 5 of 1"));
        report.sites[1].process = 0;
        report.sites[0].live_bytes = u64::MAX;
        assert!(error(&written(&report)).contains("the sum of live_bytes"));
        report.sites[0].live_bytes = 1;
        report.sites[0].frames = vec![Default::default(); 4097];
        assert!(error(&written(&report)).contains("more than 4096 frames"));
    }
}
