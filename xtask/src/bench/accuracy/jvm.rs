//! A JVM, against its own account: native memory tracking (NMT).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::balance::{mib, share};
use super::load::{Load, Talker};
use crate::jdks::DEBIAN;
use crate::{java, shell};

pub(super) const WORDS: &str =
    "`Heap`: a direct buffer of 20,000,003 bytes, 900,000 arrays; the heap touched by the JVM";

/// The heap grows in pages that the JVM touches: what is committed is in memory.
const OPTIONS: [&str; 5] = [
    "-XX:NativeMemoryTracking=summary",
    "-XX:+UseSerialGC",
    "-XX:+AlwaysPreTouch",
    "-Xms16m",
    "-Xmx256m",
];

struct Jvm {
    program: Talker,
    before: Account,
    after: Account,
}

pub(super) fn start(_folder: &Path) -> Result<Box<dyn Load>> {
    java::build()?;
    let mut command = Command::new(Path::new(DEBIAN).join("bin/java"));
    command.args(OPTIONS).arg("-cp").arg(java::folder());
    let program = Talker::start(command.arg("Heap"))?;
    // The first question makes memory of its own.
    Account::ask(&program.pid())?;
    let before = Account::ask(&program.pid())?;
    Ok(Box::new(Jvm {
        program,
        before,
        after: before,
    }))
}

impl Load for Jvm {
    fn pid(&self) -> String {
        self.program.pid()
    }

    fn work(&mut self) -> Result<()> {
        self.program.tell("direct 20000003")?;
        self.program.tell("arrays 900000")?;
        self.after = Account::ask(&self.program.pid())?;
        Ok(())
    }

    fn notes(&self, report: &Value) -> Result<Option<String>> {
        let growth = |of: fn(&Account) -> i64| of(&self.after) - of(&self.before);
        let parts = report["balance"][0]["parts"].as_array();
        let part = |name: &str| {
            let mut parts = parts.into_iter().flatten();
            let part = parts.find(|part| part["name"] == name);
            part.and_then(|part| part["bytes"].as_i64()).unwrap_or(0)
        };
        let line = |what: &str, own: i64, ours: i64| {
            format!(
                "| {what} | {} | {} | {} |\n",
                mib(own),
                mib(ours),
                share(own.abs_diff(ours), own.unsigned_abs())
            )
        };
        Ok(Some(format!(
            "The JVM's own account of the same run, by `jcmd PID VM.native_memory`:\n\n\
             | growth | by NMT | by `unfreed` | off |\n|---|---|---|---|\n{}{}",
            line(
                "Java heap: committed; in memory",
                growth(|account| account.heap),
                part("java_heap")
            ),
            line(
                "by `malloc`; live blocks",
                growth(|account| account.malloc),
                report["totals"]["live_bytes"]
                    .as_i64()
                    .map_or(0, |live| live - mapped(report))
            )
        )))
    }
}

/// Live bytes of mappings, which are no blocks.
fn mapped(report: &Value) -> i64 {
    let sites = report["sites"].as_array().into_iter().flatten();
    let mapped = sites.filter(|site| site["kind"] != "heap");
    mapped.filter_map(|site| site["live_bytes"].as_i64()).sum()
}

/// What a JVM says of its memory, bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Account {
    heap: i64,
    malloc: i64,
}

impl Account {
    fn ask(pid: &str) -> Result<Self> {
        let mut jcmd = Command::new(Path::new(DEBIAN).join("bin/jcmd"));
        jcmd.args([pid, "VM.native_memory", "summary", "scale=b"]);
        let said = shell::capture(&mut jcmd)?;
        Self::of(&said).with_context(|| format!("the JVM says {said}"))
    }

    fn of(said: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = text.split(|byte: char| !byte.is_ascii_digit()).next()?;
            digits.parse::<i64>().ok()
        };
        let after = |line: &str, key: &str| number(line.split_once(key)?.1);
        let heap = said.lines().find(|line| line.contains(" Java Heap "))?;
        Some(Self {
            heap: after(heap, "committed=")?,
            malloc: said
                .lines()
                .filter_map(|line| after(line, "(malloc="))
                .sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read() {
        let said = "Total: reserved=1234B, committed=99B\n\
            -                 Java Heap (reserved=268435456B, committed=16777216B)\n\
            \x20                           (mmap: reserved=268435456B, committed=16777216B)\n\
            -                     Class (reserved=1B, committed=1B)\n\
            \x20                           (malloc=100B #3)\n\
            -                     Other (reserved=20B, committed=20B)\n\
            \x20                           (malloc=20000003B #2)\n";
        let account = Account {
            heap: 16_777_216,
            malloc: 20_000_103,
        };
        assert_eq!(Account::of(said), Some(account));
        assert_eq!(Account::of("no"), None);
    }
}
