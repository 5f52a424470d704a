//! Who asks.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::listener::sockets;
use super::{FOLDER, Head, Question};
use crate::model::Report;
use crate::report::json;

/// A search is bounded; it has ended, and its report is named, within this time.
const PATIENCE: Duration = Duration::from_secs(600);
/// Of an answer so much is read, bytes.
const MOST_ANSWER: u64 = 1 << 30;

/// Asks the run that traces a process, whichever it is: its report until now. Call paths have the
/// indices that they have in the kernel.
///
/// # Errors
/// There is none, or it has ended meanwhile.
pub fn ask(question: &Question) -> Result<Report> {
    ask_in(Path::new(FOLDER), question)
}

pub(super) fn ask_in(folder: &Path, question: &Question) -> Result<Report> {
    let all = match sockets(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        all => all.with_context(|| {
            format!(
                "cannot read {}, where runs listen: ask as the user who runs them, as root with sudo",
                folder.display()
            )
        })?,
    };
    // One that ends just now, of another process as likely as not, keeps nobody from the next.
    let mut failed = None;
    for path in all {
        // Nobody may listen there any more.
        let Ok(stream) = UnixStream::connect(&path) else {
            continue;
        };
        match ask_at(&stream, question) {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    let none = format!(
        "no run follows the allocations of process {0}: begin with `unfreed record -p {0}`, and ask while it goes on",
        question.pid
    );
    Err(match failed {
        Some(error) => error.context(none),
        None => anyhow!(none),
    })
}

/// Asks one; nothing if it does not trace the process.
fn ask_at(mut stream: &UnixStream, question: &Question) -> Result<Option<Report>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", serde_json::to_string(question)?)?;
    let mut reader = BufReader::new(stream.take(MOST_ANSWER));
    let mut head = String::new();
    reader.read_line(&mut head)?;
    ensure!(!head.is_empty(), "the run has ended");
    let indices = match serde_json::from_str(&head)? {
        Head::NotTraced => return Ok(None),
        Head::Failed(why) => bail!("{why}"),
        Head::Report(indices) => indices,
    };
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    let mut report = json::read(&mut Cursor::new(text))
        .context("the answer is not whole, or of another version")?;
    let mut indices: HashMap<u64, Vec<u32>> = indices.into_iter().collect();
    for site in &mut report.sites {
        site.indices = indices.remove(&site.id).unwrap_or_default();
    }
    Ok(Some(report))
}
