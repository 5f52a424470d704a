//! What is not traced though it matters: processes that could not be, and
//! children that hold more than their parent.

use super::layout::Layout;
use crate::model::{Children, Report};
use crate::report::{names, units};

/// Adds both, with an empty line behind; nothing if there is neither.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    let before = text.len();
    for untraced in &report.untraced {
        let sentence = untraced.sentence();
        let lines = sentence.lines().enumerate();
        for (number, line) in lines {
            let indent = if number == 0 { 0 } else { 2 };
            layout.prose(text, layout.warning, indent, &names::clean(line.trim()));
        }
    }
    for process in &report.processes {
        if let Some(children) = &process.children {
            let sentence = children_sentence(process.pid, &process.name, children);
            layout.prose(text, layout.warning, 0, &names::clean(&sentence));
        }
    }
    if text.len() > before {
        text.push('\n');
    }
}

/// That a process's children hold more than it does, and what to do. The name is
/// the target's.
pub fn children_sentence(pid: u32, name: &str, children: &Children) -> String {
    let theirs = match children.count {
        1 => "its child, which is not traced, holds".to_owned(),
        count => format!(
            "its {} children (with theirs), which are not traced, hold",
            units::grouped(count)
        ),
    };
    let (grown, own_grown) = (
        change(children.bytes_at_start, children.bytes),
        change(children.own_bytes_at_start, children.own_bytes),
    );
    let during = match (&grown, &own_grown) {
        (None, None) => String::new(),
        (grown, own) => format!(
            " During the run theirs {}, and its own {}.",
            grown.as_deref().unwrap_or("stayed the same"),
            own.as_deref().unwrap_or("stayed the same")
        ),
    };
    format!(
        "{name} ({pid}) holds {} of anonymous memory, and {theirs} {}.{during} `sudo unfreed record -p {pid} --follow` traces them too.",
        units::bytes(children.own_bytes),
        units::bytes(children.bytes),
    )
}

fn change(from: u64, to: u64) -> Option<String> {
    match to.abs_diff(from) {
        0 => None,
        by if to > from => Some(format!("grew by {}", units::bytes(by))),
        by => Some(format!("shrank by {}", units::bytes(by))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Untraced;
    use crate::report::sample;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_process_whose_children_hold_more_is_told_with_the_command() {
        let mut report = sample::report();
        report.processes[0].children = Some(Children {
            count: 2,
            bytes_at_start: 40 * MIB,
            bytes: 48 * MIB,
            own_bytes_at_start: 20 * MIB,
            own_bytes: 20 * MIB,
        });
        let mut text = String::new();
        render(&mut text, &report, &Layout::new(10, Some(500), false));
        assert_eq!(
            text,
            "leaky (1234) holds 20.0 MiB of anonymous memory, and its 2 children (with theirs), which are not traced, hold 48.0 MiB. During the run theirs grew by 8.00 MiB, and its own stayed the same. `sudo unfreed record -p 1234 --follow` traces them too.\n\n"
        );
    }

    #[test]
    fn each_process_that_is_not_traced_has_its_reason() {
        let mut report = sample::report();
        report.untraced.push(Untraced {
            pid: 7,
            process: "odd\x1b[2J".into(),
            reason: "it is a 32-bit program".into(),
            at: Some(2.5),
        });
        let mut text = String::new();
        render(&mut text, &report, &Layout::new(10, Some(200), false));
        assert!(!text.contains('\x1b'), "{text}");
        let expected = "is not traced any more, 2.5 s into the run: it is a 32-bit program";
        assert!(
            text.starts_with("7 (odd") && text.contains(expected),
            "{text}"
        );
    }

    #[test]
    fn nothing_to_say_is_nothing() {
        let mut text = String::new();
        let layout = Layout::new(10, Some(60), false);
        render(&mut text, &sample::report(), &layout);
        assert_eq!(text, "");
    }
}
