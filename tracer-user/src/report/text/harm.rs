//! What was left alone so that no process is harmed, and processes that may have
//! been harmed all the same.

use super::layout::Layout;
use crate::report::model::Report;
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
