//! What the JVMs' own memory says of their native memory, at first and at
//! last.

use std::cmp::Reverse;
use std::collections::HashMap;

use tracer_ebpf::limits::MAX_PROCESSES;

use super::Session;
use super::jvms::Jvms;
use crate::jvm::holders::{Loaders, search_loaders};
use crate::model::JavaNative;
use crate::model::java_native::{GrownLoaders, LoaderCount, NativeView};
use crate::process::clock::monotonic_ns;
use crate::report::class_loading;

/// More kinds of class loaders that grew are not told, nor searched for.
const MAX_GROWN: usize = 16;
const MAX_SEARCHED: usize = 4;

/// A view, and when it was taken: nanoseconds of `CLOCK_MONOTONIC`.
type Taken = (u64, NativeView);

/// The first and the last view of each image's JVM.
#[derive(Default)]
pub struct NativeViews(HashMap<u64, (Taken, Option<Taken>)>);

impl NativeViews {
    /// Takes the first view of JVMs that have none yet.
    pub fn begin(&mut self, jvms: &Jvms) {
        for (image, jvm) in jvms.readable() {
            if self.0.len() < MAX_PROCESSES as usize
                && !self.0.contains_key(&image)
                && let Some(view) = jvm.native()
            {
                self.0.insert(image, ((monotonic_ns(), view), None));
            }
        }
    }

    /// Takes the last view of each, until there is a later one.
    pub fn look(&mut self, jvms: &Jvms) {
        self.begin(jvms);
        for (image, jvm) in jvms.readable() {
            if let Some((_, last)) = self.0.get_mut(&image)
                && let Some(view) = jvm.native()
            {
                *last = Some((monotonic_ns(), view));
            }
        }
    }
}

/// The class loaders of which there are more at last, most first.
fn grown(first: &NativeView, last: &NativeView) -> Vec<GrownLoaders> {
    let (Some(first), Some(last)) = (&first.class_loaders, &last.class_loaders) else {
        return Vec::new();
    };
    let key = |it: &LoaderCount| (it.kind, it.class.clone());
    let before: HashMap<_, _> = first
        .by_class
        .iter()
        .map(|it| (key(it), it.count))
        .collect();
    let rows = last.by_class.iter().map(|it| GrownLoaders {
        kind: it.kind,
        class: it.class.clone(),
        before: before.get(&key(it)).copied().unwrap_or(0),
        after: it.count,
        holders: None,
    });
    let mut grown: Vec<_> = rows.filter(|it| it.after > it.before).collect();
    grown.sort_by_key(|it| Reverse(it.after - it.before));
    grown.truncate(MAX_GROWN);
    grown
}

impl Session {
    /// Adds who holds those that grew most.
    fn add_loaders_holders(&self, image: u64, grown: &mut [GrownLoaders]) {
        if !self.java.searches_holders {
            return;
        }
        let mut machines = self.java.jvms.readable();
        let Some((_, jvm)) = machines.find(|(of, _)| *of == image) else {
            return;
        };
        let is_asked = |it: &&mut GrownLoaders| it.after - it.before >= class_loading::MANY;
        let mut asked: Vec<_> = grown
            .iter_mut()
            .filter(is_asked)
            .take(MAX_SEARCHED)
            .collect();
        if asked.is_empty() {
            return;
        }
        let loaders: Vec<_> = asked
            .iter()
            .map(|it| Loaders {
                kind: it.kind,
                class: &it.class,
                count: it.after - it.before,
            })
            .collect();
        let found = search_loaders(jvm, &loaders, &|handles| {
            self.whose_handles((image, jvm), handles)
        });
        for (grown, found) in asked.iter_mut().zip(found) {
            grown.holders = Some(found);
        }
    }

    /// The views of these images' JVMs; `images` has the id of each and its
    /// index in the report.
    pub(super) fn java_native(&mut self, images: &[(u64, usize)]) -> Vec<JavaNative> {
        if self.ended.is_none() {
            self.java.native.look(&self.java.jvms);
        }
        let timed = |(time, view): &Taken| NativeView {
            at: self.since_start(*time),
            ..view.clone()
        };
        let views = images.iter().filter_map(|(image, process)| {
            let (first, last) = self.java.native.0.get(image)?;
            let last = last.as_ref();
            let mut grown = last.map_or_else(Vec::new, |last| grown(&first.1, &last.1));
            if self.ended.is_some() {
                self.add_loaders_holders(*image, &mut grown);
            }
            Some(JavaNative {
                process: *process,
                first: timed(first),
                last: last.map(timed),
                grown_loaders: grown,
            })
        });
        views.collect()
    }
}
