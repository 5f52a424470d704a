//! What the JVMs' own memory says of their native memory, at first and at
//! last.

use std::collections::HashMap;

use tracer_ebpf::limits::MAX_PROCESSES;

use super::Session;
use super::jvms::Jvms;
use crate::model::JavaNative;
use crate::model::java_native::NativeView;
use crate::process::clock::monotonic_ns;

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

impl Session {
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
            Some(JavaNative {
                process: *process,
                first: timed(first),
                last: last.as_ref().map(timed),
            })
        });
        views.collect()
    }
}
