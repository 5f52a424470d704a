//! What a leak would not be seen by, where none was seen.

use std::collections::BTreeSet;

use crate::model::{Report, UnseenFunction};
use crate::report::{names, units};

/// Functions that are named, at most.
const MAX: usize = 2;

/// That no leak was seen, after what it would not be seen by. It goes on with where and
/// for how long.
pub fn no_leak_seen(report: &Report) -> String {
    match functions(report) {
        None => "No leak seen".to_owned(),
        Some(hidden) => format!("A leak by {hidden} would not be seen. No other leak seen"),
    }
}

/// The functions that are not probed, and whose calls are seen nowhere else.
fn functions(report: &Report) -> Option<String> {
    let all = report.processes.iter().flat_map(|it| &it.unseen);
    let all: BTreeSet<_> = all.filter(|it| !it.seen_elsewhere).map(name).collect();
    let rest = all.len().saturating_sub(MAX);
    let mut named: Vec<_> = all.into_iter().take(MAX).collect();
    if rest > 0 {
        named.push(units::counted(rest as u64, "more function"));
    }
    (!named.is_empty()).then(|| named.join(" or "))
}

fn name(unseen: &UnseenFunction) -> String {
    let module = names::base(&unseen.module);
    format!(
        "{} ({})",
        names::clean(&unseen.function),
        names::clean(module)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn unseen(function: &str, seen_elsewhere: bool) -> UnseenFunction {
        UnseenFunction {
            function: function.into(),
            module: "/lib/x\x1b[1m.so".into(),
            reason: "it has no name".into(),
            seen_elsewhere,
            was_told: false,
        }
    }

    #[test]
    fn what_would_not_be_seen_comes_first() {
        let mut report = sample::report();
        report.processes[0].unseen = vec![unseen("mmap", true)];
        assert_eq!(no_leak_seen(&report), "No leak seen");
        let functions = ["every function of its scudo", "b", "c", "d", "d"];
        let functions = functions.map(|function| unseen(function, false));
        report.processes[0].unseen.extend(functions);
        let said = no_leak_seen(&report);
        assert!(
            said.starts_with("A leak by b (x") && said.contains(" or c (x"),
            "{said}"
        );
        let end = " or 2 more functions would not be seen. No other leak seen";
        assert!(said.ends_with(end), "{said}");
        assert!(!said.contains('\x1b'), "{said:?}");
    }
}
