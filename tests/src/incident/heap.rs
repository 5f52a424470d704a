//! What a report says about the Java heap: the part `java_heap` of the JSON,
//! which only a run with `--java-heap` has. Its fields are named here alone.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::model::Frame;

/// The growth of classes over the class histograms of one process.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct JavaHeap {
    /// Classes of which there are more or fewer than at first.
    pub(super) classes: Vec<Class>,
    /// Why there are no histograms, or no more.
    problem: Option<String>,
}

/// One class.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Class {
    /// As Java writes it.
    #[serde(rename = "class")]
    pub(super) name: String,
    /// What the tracer says.
    verdict: String,
    /// Objects, in each histogram.
    instances: Vec<u64>,
    /// Where some were allocated, most first.
    #[serde(default)]
    pub(super) allocated: Vec<AllocationPath>,
}

/// A call path that allocates objects of a class.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct AllocationPath {
    /// Root first.
    pub(super) frames: Vec<Frame>,
}

impl Class {
    /// Objects that came and stayed.
    pub(super) fn growth(&self) -> u64 {
        match (self.instances.first(), self.instances.last()) {
            (Some(first), Some(last)) => last.saturating_sub(*first),
            _ => 0,
        }
    }

    /// Whether the tracer says that the class grows.
    pub(super) fn grows(&self) -> bool {
        self.verdict == "grows"
    }
}

/// Reads that part of a report about a single process, if it is there.
///
/// # Errors
/// It does not have the fields that we know, or the tracer could not look.
pub(super) fn read(report: &str) -> Result<Option<JavaHeap>> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        java_heap: Vec<JavaHeap>,
    }
    let part: Part = serde_json::from_str(report).context("the part `java_heap` of a report")?;
    let heap = part.java_heap.into_iter().next();
    if let Some(problem) = heap.as_ref().and_then(|heap| heap.problem.as_ref()) {
        bail!("the tracer cannot look at classes: {problem}");
    }
    Ok(heap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_may_be_absent() {
        assert!(read(r#"{"schema": "unfreed/1"}"#).unwrap().is_none());
        assert!(read(r#"{"java_heap": 7}"#).is_err());
        let refused = read(r#"{"java_heap": [{"classes": [], "problem": "refused"}]}"#);
        assert!(refused.unwrap_err().to_string().contains("refused"));
    }

    #[test]
    fn growth_is_from_the_first_to_the_last() {
        let text = r#"{"java_heap": [{"classes": [
            {"class": "double[]", "verdict": "grows", "instances": [2, 9, 8]},
            {"class": "int[]", "verdict": "steady", "instances": [2, 1]}
        ], "problem": null}]}"#;
        let heap = read(text).unwrap().unwrap();
        let found: Vec<_> = heap
            .classes
            .iter()
            .map(|class| (class.growth(), class.grows()))
            .collect();
        assert_eq!(found, [(6, true), (0, false)]);
    }
}
