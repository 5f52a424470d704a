//! What the behaviours of the suite are: `tests/targets/verdicts/labels.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use tracer_ebpf_build::workspace;

use super::program::Language;
use crate::bench::model::Verdict;

/// Which part of the suite a behaviour belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(in crate::bench) enum Half {
    /// Rules are made with it.
    Design,
    /// Rules are only measured with it.
    Measure,
}

impl Half {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Design => "design",
            Self::Measure => "measure",
        }
    }
}

/// What is true of one call path, or of one Java class, of a program in a mode.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Label {
    pub(super) program: Language,
    pub(super) mode: String,
    /// A function whose paths are judged, or the class whose objects are.
    pub(super) judged: String,
    /// In a few words.
    pub(super) kind: String,
    pub(super) half: Half,
    /// How fast it leaks in the mean of a long time; of what leaks alone.
    #[serde(default)]
    pub(super) bytes_per_second: Option<f64>,
    /// From so many seconds on: what it is, and what else is right to say of it.
    from: BTreeMap<u64, Vec<Verdict>>,
}

impl Label {
    /// All of them, in the order of the file.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or says something that cannot be.
    pub(super) fn all() -> Result<Vec<Self>> {
        let file = workspace().join("tests/targets/verdicts/labels.json");
        let text = fs::read_to_string(&file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> Result<Vec<Self>> {
        let labels: Vec<Self> = serde_json::from_str(text)?;
        let mut seen = BTreeSet::new();
        for label in &labels {
            let name = label.name();
            let all_named = label.from.values().all(|right| !right.is_empty());
            ensure!(
                all_named && label.from.contains_key(&0),
                "{name}: not all times have a class"
            );
            let leaks = label.from.values().next_back() == Some(&vec![Verdict::Leak]);
            ensure!(
                leaks == label.bytes_per_second.is_some(),
                "{name}: what leaks to the end has a rate, and nothing else does"
            );
            ensure!(label.judged.len() > 4, "{name}: its name is in others'");
            ensure!(
                seen.insert((label.run(), label.judged.clone())),
                "{name} is labelled twice"
            );
        }
        Ok(labels)
    }

    /// What is right to say after so many seconds: first what it is.
    pub(super) fn right(&self, seconds: u64) -> &[Verdict] {
        let last = self.from.range(..=seconds).next_back();
        last.map_or(&[], |(_, right)| right)
    }

    /// The program and its mode, as `--service` has it.
    pub(super) fn run(&self) -> String {
        format!("{}:{}", self.program.key(), self.mode)
    }

    /// The same with what is judged, where the mode does not say it.
    pub(super) fn name(&self) -> String {
        let is_other =
            matches!(self.program, Language::C | Language::Cpp) && self.judged != self.mode;
        match is_other {
            true => format!("{} {}", self.run(), self.judged),
            false => self.run(),
        }
    }

    /// Whether objects of a Java class are judged.
    pub(super) fn is_class(&self) -> bool {
        self.judged.contains('$')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_balanced() {
        let labels = Label::all().unwrap();
        let runs: BTreeSet<String> = labels.iter().map(Label::run).collect();
        assert!(runs.len() >= 60, "{}", runs.len());
        for language in Language::all() {
            for half in [Half::Design, Half::Measure] {
                let own = labels.iter().filter(|it| it.program == language);
                let own: Vec<_> = own.filter(|it| it.half == half).collect();
                let leaks = own.iter().filter(|it| it.bytes_per_second.is_some());
                let leaks = leaks.count();
                assert!(
                    leaks >= 1 && own.len() - leaks >= 2,
                    "{language:?} {half:?}"
                );
            }
        }
        // Those of one program are in one half: they are seen together.
        for label in &labels {
            let same = labels.iter().filter(|it| it.run() == label.run());
            assert!(same.into_iter().all(|it| it.half == label.half));
        }
    }

    fn label(rest: &str) -> Result<Vec<Label>> {
        Label::parse(&format!(
            r#"[{{"program": "c", "mode": "some_mode", "judged": "some_mode", "kind": "cache",
                "half": "design", {rest}}}]"#
        ))
    }

    #[test]
    fn a_class_is_from_a_time_on() {
        let labels = label(r#""from": {"0": ["growing"], "20": ["plateau", "churn"]}"#).unwrap();
        assert_eq!(labels[0].right(19), [Verdict::Growing]);
        assert_eq!(labels[0].right(20), [Verdict::Plateau, Verdict::Churn]);
        assert_eq!(labels[0].name(), "c:some_mode");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for rest in [
            r#""from": {"5": ["growing"]}"#,
            r#""from": {"0": []}"#,
            r#""from": {"0": ["leak"]}"#,
            r#""from": {"0": ["churn"]}, "bytes_per_second": 7"#,
            r#""from": {"0": ["leek"]}, "bytes_per_second": 7"#,
            r#""from": {"0": ["churn"]}, "other": 7"#,
        ] {
            assert!(label(rest).is_err(), "{rest}");
        }
    }
}
