//! Folded stacks: one line a site, root first, `;` between frames, then a
//! space and the live bytes. Read by flamegraph.pl, inferno and speedscope.
//! Java methods have their plain names, so that a path is the same however
//! the JVM ran it.

use std::borrow::Cow;
use std::io::{self, Write};

use super::{java_growth, names};
use crate::model::{Frame, Report};

/// Writes the sites that hold live bytes. With several processes the first
/// frame of a line is `name (pid)`; where threads are told apart, `[name
/// tid=7]` follows.
///
/// # Errors
/// Only those of the writer.
pub fn write(report: &Report, writer: &mut dyn Write) -> io::Result<()> {
    for site in report.sites.iter().filter(|site| site.live_bytes > 0) {
        let roots = names::roots(report, site);
        write_path(writer, &roots, &names::drawn_frames(site))?;
        writeln!(writer, " {}", site.live_bytes)?;
    }
    Ok(())
}

/// Writes the growing Java classes, each as the last frame of the call paths
/// that allocate it; the value is the growth in bytes.
///
/// # Errors
/// Only those of the writer.
pub fn write_java(report: &Report, writer: &mut dyn Write) -> io::Result<()> {
    for grown in java_growth::paths(report) {
        write_path(writer, &java_growth::roots(report, &grown), &grown.frames)?;
        writeln!(writer, " {}", grown.bytes)?;
    }
    Ok(())
}

/// Writes a call path on its roots as `root;frame;frame`, root first.
///
/// # Errors
/// Only those of the writer.
pub fn write_path(writer: &mut dyn Write, roots: &[String], frames: &[Frame]) -> io::Result<()> {
    if roots.is_empty() && frames.is_empty() {
        return write!(writer, "{}", names::UNKNOWN);
    }
    let roots = roots.iter().map(|root| Cow::from(root.as_str()));
    for (index, label) in roots.chain(frames.iter().map(names::label)).enumerate() {
        if index > 0 {
            write!(writer, ";")?;
        }
        writer.write_all(label.replace(';', ":").as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Process, StackEnd};
    use crate::report::sample;

    fn folded(report: &Report) -> String {
        let mut text = Vec::new();
        write(report, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_stack_that_ends_early_says_so_at_its_root() {
        let mut report = sample::report();
        report.sites[2].stack_end = StackEnd::TooDeep;
        let expected = "\n[deeper than 127 frames: the root is missing];__libc_start_main;main;";
        assert!(folded(&report).contains(expected));
    }

    #[test]
    fn root_first_with_live_bytes_and_nothing_that_holds_nothing() {
        let expected = "\
__libc_start_main;main;open_session(int);Session::Session();malloc 10097063
__libc_start_main;main;Cache::insert(Key const&);malloc 1045504
__libc_start_main;main;load_config();malloc 65537
";
        assert_eq!(folded(&sample::report()), expected);
    }

    #[test]
    fn names_cannot_break_the_format() {
        let mut report = sample::report();
        report.sites.truncate(1);
        report.sites[0].frames.truncate(1);
        report.sites[0].frames[0].function = Some("drop<[u8; 8]>\nevil 1".into());
        assert_eq!(folded(&report), "drop<[u8: 8]>\u{FFFD}evil 1 10097063\n");
        report.sites[0].frames.clear();
        assert_eq!(folded(&report), "[unknown] 10097063\n");
    }

    #[test]
    fn threads_are_the_first_frames_below_the_process() {
        use crate::model::Thread;
        let mut report = sample::report();
        report.sites[2].thread = Some(Thread {
            id: 99,
            name: "pool;1".into(),
        });
        let line = "[pool:1 tid=99];__libc_start_main;main;load_config();malloc 65537\n";
        assert!(folded(&report).ends_with(&format!("\n{line}")));
        report.processes.push(report.processes[0].clone());
        assert!(folded(&report).ends_with(&format!("\nleaky (1234);{line}")));
    }

    #[test]
    fn several_processes_are_the_first_frames() {
        let mut report = sample::report();
        report.processes.push(Process {
            pid: 77,
            name: "child;".into(),
            ..report.processes[0].clone()
        });
        report.sites[2].process = 1;
        let text = folded(&report);
        assert!(
            text.starts_with("leaky (1234);__libc_start_main;"),
            "{text}"
        );
        assert!(
            text.contains("\nchild: (77);__libc_start_main;main;load_config();malloc 65537\n"),
            "{text}"
        );
    }
}
