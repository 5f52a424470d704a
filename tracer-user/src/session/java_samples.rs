//! Where Java objects are allocated: the JVMs' own samples (or each object), by
//! class and call path.

use std::collections::HashMap;

use super::Session;
use super::jvms::HeapSource;
use super::snapshot::stack_end;
use crate::grouping::merge::add_path;
use crate::jvm::frames::Named;
use crate::jvm::klass::stable;
use crate::model::{AllocationPath, ClassGrowth, Frame, JavaHeap};
use crate::process::code::CodeSpace;
use crate::symbolize::Symbolizer;
use crate::targets::images::Image;

/// Where the objects of a Java heap were allocated, without names.
pub struct NamelessSamples {
    /// The heap's index in the report.
    heap: usize,
    code: CodeSpace,
    /// Whether the JVM tells no sizes.
    is_unsized: bool,
    samples: Vec<NamelessSample>,
}

/// Objects of a class by one path.
struct NamelessSample {
    class: String,
    path: AllocationPath,
    words: Vec<u64>,
    names: Vec<Option<Named>>,
    first_seen: u64,
}

impl NamelessSamples {
    /// Adds to a heap's classes where they were allocated.
    pub fn add_to(self, heaps: &mut [JavaHeap], symbolizer: &mut Symbolizer) {
        let Some(heap) = heaps.get_mut(self.heap) else {
            return;
        };
        let mut paths: HashMap<String, Vec<AllocationPath>> = HashMap::new();
        for sample in self.samples {
            let NamelessSample { words, names, .. } = &sample;
            let mut frames = symbolizer.frames(&self.code, words, names, sample.first_seen);
            trim(&mut frames);
            let path = AllocationPath {
                frames,
                ..sample.path
            };
            add_path(paths.entry(sample.class).or_default(), path);
        }
        for class in &mut heap.classes {
            // Lambdas of a class have one name here.
            let known = paths.get(stable(&class.class));
            class.allocated = known.cloned().unwrap_or_default();
            if self.is_unsized {
                measure(class);
            }
            class
                .allocated
                .sort_by_key(|path| std::cmp::Reverse(path.bytes));
        }
    }
}

impl Session {
    /// What was sampled of a heap, which is the report's with this index.
    pub(super) fn samples(&self, index: usize, heap: &mut JavaHeap) -> Option<NamelessSamples> {
        let (image, code) = self.last_image(heap.pid)?;
        let source = self.java.jvms.heap(image.id);
        heap.sampled.exact = matches!(source, Ok(HeapSource::Objects { .. }));
        let is_unsized = source == Ok(HeapSource::Objects { sized: false });
        heap.sampled.problem = source.err();
        let mut samples = Vec::new();
        for (site_index, site) in self.engine.object.samples() {
            if site.image != image.id || site.allocated_count == 0 {
                continue;
            }
            heap.sampled.samples += site.allocated_count;
            heap.sampled.bytes += site.allocated_bytes;
            let words = &site.frames[..(site.depth as usize).min(site.frames.len())];
            let seen = (site.first_seen, site.last_seen);
            let names = self.java.names.of(site_index, words, seen);
            let Some(class) = names.first().and_then(class_of) else {
                continue;
            };
            samples.push(NamelessSample {
                class,
                path: AllocationPath {
                    samples: site.allocated_count,
                    bytes: site.allocated_bytes,
                    stack_end: stack_end(site.end),
                    frames: Vec::new(),
                },
                words: words.to_vec(),
                names,
                first_seen: site.first_seen,
            });
        }
        Some(NamelessSamples {
            heap: index,
            code: code.view(),
            is_unsized,
            samples,
        })
    }

    /// The image that a process had last.
    pub(super) fn last_image(&self, pid: u32) -> Option<(&Image, &CodeSpace)> {
        let mut images = self.images.iter().filter(|image| image.pid == pid);
        let image = images.next_back()?;
        Some((image, self.images.code(image)?))
    }
}

/// The bytes of objects whose size the JVM does not tell: objects of a class
/// have one size, and arrays are taken for as large as they are on average.
fn measure(class: &mut ClassGrowth) {
    let histograms = || std::iter::zip(&class.instances, &class.bytes);
    let instances: u128 = histograms().map(|(count, _)| u128::from(*count)).sum();
    let bytes: u128 = histograms().map(|(_, bytes)| u128::from(*bytes)).sum();
    for path in &mut class.allocated {
        let known = (u128::from(path.samples) * bytes).checked_div(instances);
        path.bytes = known
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0);
    }
}

/// The class that a sample's first word stands for.
fn class_of(named: &Option<Named>) -> Option<String> {
    let Some(Ok(frames)) = named else {
        return None;
    };
    frames.first()?.class.as_deref().map(ToOwned::to_owned)
}

/// Leaves out the class, and what the VM itself does to allocate: it differs
/// from tier to tier.
fn trim(frames: &mut Vec<Frame>) {
    frames.pop();
    let java = frames.iter().rposition(|frame| frame.origin.is_java());
    if let Some(last) = java {
        frames.truncate(last + 1);
    }
}
