//! What a report says about the Java heap: the part `java_heap` of the JSON,
//! which only a run with `--java-heap` has.

use anyhow::{Context, Result};
use serde::Deserialize;

/// The growth of classes between two histograms of one process.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct JavaHeap {
    /// All classes.
    pub(super) classes: Vec<Class>,
}

/// One class.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Class {
    /// As the virtual machine or as Java writes it.
    pub(super) name: String,
    /// Objects at the beginning of the run.
    pub(super) instances_before: i64,
    /// Objects at its end.
    pub(super) instances_after: i64,
    /// Whether the tracer calls that growth.
    pub(super) grows: bool,
}

impl Class {
    /// Objects that came and stayed.
    pub(super) fn growth(&self) -> i64 {
        self.instances_after - self.instances_before
    }

    /// Whether this is the class that Java calls `name`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name || (self.name == "[D" && name == "double[]")
    }
}

/// Reads that part of a report about a single process, if it is there.
///
/// # Errors
/// It does not have the fields that we know.
pub(super) fn read(report: &str) -> Result<Option<JavaHeap>> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        java_heap: Vec<JavaHeap>,
    }
    let part: Part = serde_json::from_str(report).context("the part `java_heap` of a report")?;
    Ok(part.java_heap.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_may_be_absent() {
        assert!(read(r#"{"schema": "unfreed/1"}"#).unwrap().is_none());
        assert!(read(r#"{"java_heap": 7}"#).is_err());
    }

    #[test]
    fn arrays_have_two_names() {
        let text = r#"{"java_heap": [{"process": 0, "classes": [{"name": "[D",
            "instances_before": 8, "instances_after": 2, "bytes_before": 0, "bytes_after": 0,
            "grows": false}]}]}"#;
        let heap = read(text).unwrap().unwrap();
        assert!(heap.classes[0].is("double[]") && !heap.classes[0].is("int[]"));
        assert_eq!(heap.classes[0].growth(), -6);
    }
}
