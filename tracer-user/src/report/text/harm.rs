//! What was left alone so that no process is harmed, and processes that may have
//! been harmed all the same.

use super::layout::Layout;
use crate::model::Report;
use crate::report::names;

/// Adds both, with an empty line behind; nothing if there is neither.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    let before = text.len();
    for process in &report.processes {
        let (Some(outcome), Some(suspicion)) = (process.outcome, &process.suspicion) else {
            continue;
        };
        let who = names::process(process);
        let lines = suspicion.lines(&who, outcome, &report.kernel);
        for (number, line) in lines.iter().enumerate() {
            let indent = if number < 2 { 0 } else { 2 };
            layout.prose(text, layout.warning, indent, &names::clean(line));
        }
    }
    for left_alone in &report.left_alone {
        let sentence = left_alone.sentence();
        layout.prose(text, layout.warning, 0, &names::clean(&sentence));
    }
    if text.len() > before {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::model::{LeftAlone, LeftAloneCause, Outcome, PlacedProbe, ProcessEnd, Suspicion};
    use crate::report::sample;

    #[test]
    fn both_are_shown_within_the_width_and_cleaned() {
        let mut report = sample::report();
        report.kernel = "Linux 6.18.0 #1".into();
        report.left_alone.push(LeftAlone {
            function: "malloc".into(),
            module: "/lib/\x1b[2Jlibc.so.6".into(),
            file_offset: 0x98930,
            pid: 1234,
            process: "leaky".into(),
            cause: LeftAloneCause::Hooked,
            leads_to: vec!["/opt/agent.so".into()],
            at: Some(2.0),
            unseen: "nothing is seen".into(),
        });
        let process = &mut report.processes[0];
        process.end = ProcessEnd::Exited;
        process.outcome = Some(Outcome::of_wait(11));
        process.suspicion = Some(Suspicion {
            after: 0.5,
            placed: vec![PlacedProbe {
                function: "free".into(),
                module: "/lib/libc.so.6".into(),
                build_id: Some("ab12".into()),
                file_offset: 0x98ef0,
                displacements: vec![3],
                placement: "je (emulated)".into(),
            }],
        });
        let mut text = String::new();
        render(&mut text, &report, &Layout::new(10, Some(60), false));
        assert!(text.lines().all(|line| line.width() <= 60), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "leaky (1234) was killed by SIGSEGV 0.5 s after",
            "MAY BE THE TRACER'S DOING",
            "Linux 6.18.0 #1",
            "in /lib/libc.so.6 (ab12): free at 0x98ef0, probed at +0x3: je (emulated)",
            "is hooked in the memory of leaky (1234), by a jump to /opt/agent.so: that was found 2.0 s into",
        ] {
            assert!(words.contains(part), "no {part:?} in {words}");
        }
    }

    #[test]
    fn nothing_to_say_is_nothing() {
        let mut text = String::new();
        render(
            &mut text,
            &sample::report(),
            &Layout::new(10, Some(60), false),
        );
        assert_eq!(text, "");
    }
}
