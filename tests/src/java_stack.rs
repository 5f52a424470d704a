//! Java frames of call paths as text, and the same from what the JVM itself
//! says: thread dumps and stack traces.
//!
//! A frame is `class.method:line`, with line 0 for none; a class is written as
//! the tracer writes it, without the numbers that differ from run to run.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::model::{Frame, Origin, Site, StackEnd};
use crate::report::View;

/// What numbers of the JDK's own classes stand behind.
const NUMBERED: [&str; 2] = ["$$Lambda$", "GeneratedMethodAccessor"];

/// Such a line of a method's first bytecode; no class file has so many lines.
const FIRST_BYTECODE: u32 = 1_000_000;

/// The Java frames of a call path, innermost first. Code of the VM's own in
/// the code cache is in none of its dumps either.
pub fn java_frames(site: &Site) -> Vec<String> {
    site.frames
        .iter()
        .rev()
        .filter(|frame| frame.origin.is_java())
        .map(text)
        .collect()
}

fn text(frame: &Frame) -> String {
    match (&frame.function, &frame.reason) {
        (Some(function), _) => format!("{function}:{}", frame.line.unwrap_or(0)),
        (None, reason) => format!("? {}", reason.as_deref().unwrap_or_default()),
    }
}

/// Whether a site has Java frames.
pub fn is_java(site: &Site) -> bool {
    site.frames.iter().any(|frame| frame.origin.is_java())
}

/// Whether a frame of the call path is `function`, exactly.
pub fn has_frame(site: &Site, function: &str) -> bool {
    site.frames
        .iter()
        .any(|frame| frame.function.as_deref() == Some(function))
}

/// Whether the innermost frames of a site are these functions, outermost of
/// them first.
pub fn ends_in(site: &Site, functions: &[&str]) -> bool {
    let names: Vec<&str> = site
        .frames
        .iter()
        .map(|frame| frame.function.as_deref().unwrap_or_default())
        .collect();
    names.ends_with(functions)
}

impl View {
    /// The call paths that end early, as text: why, how often, and the frames,
    /// innermost first.
    pub fn cut_paths(&self) -> Vec<String> {
        let cut = |site: &&Site| site.stack_end != StackEnd::Start;
        let line = |site: &Site| {
            let frames: Vec<String> = site.frames.iter().rev().map(text).collect();
            let (end, count) = (site.stack_end, site.allocated_count);
            format!("{end:?}, {count}: {}", frames.join(" <- "))
        };
        self.sites.iter().filter(cut).map(line).collect()
    }

    /// The frames that have no name, with the reason, and how many allocations
    /// have such a frame.
    pub fn nameless_java(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for site in &self.sites {
            // What could not be named is code made at run time, of any kind.
            let nameless = site
                .frames
                .iter()
                .filter(|frame| frame.origin == Origin::Jit && frame.function.is_none());
            for frame in nameless {
                *reasons.entry(text(frame)).or_default() += site.allocated_count;
            }
        }
        reasons
    }
}

/// The frames of a thread in what `jcmd PID Thread.print` prints, innermost
/// first. That stops all threads at a safepoint and shows hidden frames too.
///
/// # Errors
/// There is no such thread, or a line is not as expected.
pub fn thread_in_dump(dump: &str, thread: &str) -> Result<Vec<String>> {
    let head = format!("\"{thread}\" ");
    dump.lines()
        .skip_while(|line| !line.starts_with(&head))
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim_start().strip_prefix("at "))
        .map(|line| dumped_frame(line).with_context(|| format!("in the dump: {line:?}")))
        .collect()
}

/// A frame as a dump has it: `a.B.c(java.base@17/B.java:12)`.
fn dumped_frame(line: &str) -> Option<String> {
    let (method, place) = line.strip_suffix(')')?.rsplit_once('(')?;
    let (class, method) = method.rsplit_once('.')?;
    let number = place.rsplit_once(':').map_or("0", |(_, number)| number);
    let number: u32 = number.parse().ok()?;
    Some(format!("{}.{method}:{number}", plain_class(class)))
}

/// Normalises the classes in frames of the form `class.method:line`, as
/// `StackTraceElement` tells them.
pub fn plain_frame(frame: &str) -> String {
    let Some((class, method)) = frame.rsplit_once('.') else {
        return frame.to_owned();
    };
    let method = match method.rsplit_once(':') {
        Some((method, line)) if is_bytecode(line) => format!("{method}:0"),
        _ => method.to_owned(),
    };
    format!("{}.{method}", plain_class(class))
}

/// Whether a frame's line is where its bytecode is instead: Java 8 shows that of
/// methods without lines so, if it is to show hidden frames.
fn is_bytecode(line: &str) -> bool {
    line.parse().is_ok_and(|line: u32| line >= FIRST_BYTECODE)
}

/// The class without the address behind a hidden class's name, and without the
/// numbers of lambdas and accessors.
fn plain_class(class: &str) -> String {
    let class = class.split(['/', '+']).next().unwrap_or(class);
    let plain = class.trim_end_matches(|digit: char| digit.is_ascii_digit());
    match NUMBERED.iter().any(|made| plain.ends_with(made)) {
        true => plain.trim_end_matches('$').to_owned(),
        false => class.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_read() -> Result<()> {
        let dump = "\"other\" #1\n\tat x.Y.z(Y.java:1)\n\n\"b7\" #12 daemon prio=5\n   \
                    java.lang.Thread.State: RUNNABLE\n\
                    \tat java.io.FileInputStream.readBytes(java.base@17.0.1/Native Method)\n\
                    \tat a.B$$Lambda$14/0x0000000800c01208.run(Unknown Source)\n\
                    \t- locked <0x1> (a java.lang.Object)\n\
                    \tat a.B$1.<init>(B.java:12)\n\n\"after\" #3\n\tat x.Y.z(Y.java:1)\n";
        assert_eq!(
            thread_in_dump(dump, "b7")?,
            [
                "java.io.FileInputStream.readBytes:0",
                "a.B$$Lambda.run:0",
                "a.B$1.<init>:12",
            ]
        );
        assert!(thread_in_dump(dump, "none")?.is_empty());
        Ok(())
    }

    #[test]
    fn numbers_of_the_run_are_left_out() {
        for (told, plain) in [
            ("a.B$$Lambda/0x00007f12.run:0", "a.B$$Lambda.run:0"),
            ("a.LambdaForm$MH/0x80.invoke:0", "a.LambdaForm$MH.invoke:0"),
            (
                "a.GeneratedMethodAccessor3.invoke:0",
                "a.GeneratedMethodAccessor.invoke:0",
            ),
            ("a.B$12.run:7", "a.B$12.run:7"),
            ("a.LambdaForm$MH.invoke:1000016", "a.LambdaForm$MH.invoke:0"),
        ] {
            assert_eq!(plain_frame(told), plain);
        }
    }
}
