//! A report as a pprof profile.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use prost::Message;

use super::proto::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use crate::report::model::{Frame, MemoryKind, Report, Site};
use crate::report::{java, names, units};

/// Sample types and units, in the order of Go's heap profiles.
const SAMPLE_TYPES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    (super::INUSE_OBJECTS, "count"),
    (super::INUSE_SPACE, "bytes"),
];

/// Functions of C++ between the allocator and the code that asked for memory.
const OPERATOR_NEW: &str = "operator new.*";

/// Writes the report as a compressed profile. The same report gives the same
/// bytes.
///
/// # Errors
/// Only those of the writer.
pub fn write(report: &Report, writer: &mut dyn Write) -> Result<()> {
    let profile = Builder::new(report).build(report);
    let mut file = GzBuilder::new().write(writer, Compression::default());
    file.write_all(&profile.encode_to_vec())?;
    file.finish().context("cannot compress the profile")?;
    Ok(())
}

/// Tables that are filled while the samples are written.
#[derive(Default)]
struct Builder {
    profile: Profile,
    strings: HashMap<String, i64>,
    /// By name, system's name and file.
    functions: HashMap<(i64, i64, i64), u64>,
    /// By process, address and lines.
    locations: HashMap<(usize, u64, Vec<Line>), u64>,
    /// Index into the report's modules of each mapping, in order of ids.
    mappings: Vec<usize>,
}

impl Builder {
    fn new(report: &Report) -> Self {
        let mut builder = Self::default();
        builder.string("");
        for (name, unit) in SAMPLE_TYPES {
            let value_type = builder.value_type(name, unit);
            builder.profile.sample_type.push(value_type);
        }
        builder.profile.default_sample_type = builder.string(super::INUSE_SPACE);
        builder.profile.period_type = Some(builder.value_type("space", "bytes"));
        builder.profile.period = 1;
        builder.add_mappings(report);
        builder
    }

    fn build(mut self, report: &Report) -> Profile {
        for site in report.memory().filter(|site| site.allocated_count > 0) {
            let sample = self.sample(report, site);
            self.profile.sample.push(sample);
        }
        self.profile.drop_frames = self.string(&allocators(report));
        for comment in comments(report) {
            let comment = self.string(&comment);
            self.profile.comment.push(comment);
        }
        self.profile.time_nanos = time_nanos(&report.started);
        self.profile.duration_nanos = nanos(report.duration);
        self.profile
    }

    /// Adds the mappings; viewers take the first for the main program.
    fn add_mappings(&mut self, report: &Report) {
        let is_library = |index: &usize| {
            let module = &report.modules[*index];
            let process = report.processes.get(module.process);
            process.is_none_or(|process| process.executable != module.path)
        };
        self.mappings = (0..report.modules.len()).collect();
        self.mappings.sort_by_key(is_library);
        for (position, index) in self.mappings.clone().into_iter().enumerate() {
            let module = &report.modules[index];
            let mapping = Mapping {
                id: position as u64 + 1,
                memory_start: module.start,
                memory_limit: module.end,
                file_offset: module.file_offset,
                filename: self.string(&names::clean(&module.path)),
                build_id: self.string(&names::clean(module.build_id.as_deref().unwrap_or(""))),
                ..Mapping::default()
            };
            self.profile.mapping.push(mapping);
        }
    }

    fn sample(&mut self, report: &Report, site: &Site) -> Sample {
        let groups = by_address(&site.frames);
        let leaf = groups.len().saturating_sub(1);
        let locations: Vec<u64> = groups
            .iter()
            .enumerate()
            .map(|(index, frames)| self.location(report, site.process, frames, index == leaf))
            .collect();
        let values = [
            site.allocated_count,
            site.allocated_bytes,
            site.live_count,
            site.live_bytes,
        ];
        Sample {
            location_id: locations.into_iter().rev().collect(),
            value: values.map(int).to_vec(),
            label: self.labels(report, site),
        }
    }

    fn labels(&mut self, report: &Report, site: &Site) -> Vec<Label> {
        let kind = match site.kind {
            MemoryKind::Heap => "heap",
            MemoryKind::Mapping => "mapping",
            MemoryKind::JavaHeap => "java_heap",
            MemoryKind::JniHandle => "jni_handle",
        };
        let mut labels = vec![self.text_label("kind", kind)];
        if let Some(process) = report.processes.get(site.process) {
            labels.push(self.text_label(super::PROCESS, &names::clean(&process.name)));
            labels.push(self.number_label("pid", process.pid));
        }
        if let Some(thread) = &site.thread {
            labels.push(self.text_label(super::THREAD, &names::clean(&thread.name)));
            labels.push(self.number_label(super::THREAD_ID, thread.id));
        }
        labels
    }

    fn text_label(&mut self, key: &str, text: &str) -> Label {
        Label {
            key: self.string(key),
            str: self.string(text),
            num: 0,
        }
    }

    fn number_label(&mut self, key: &str, number: u32) -> Label {
        Label {
            key: self.string(key),
            str: 0,
            num: number.into(),
        }
    }

    /// The location of a frame and the frames inlined into it.
    fn location(&mut self, report: &Report, process: usize, frames: &[Frame], leaf: bool) -> u64 {
        let named = frames.iter().rev().filter(|frame| frame.function.is_some());
        let lines: Vec<Line> = named.map(|frame| self.line(frame)).collect();
        // A return address may be the next function's: point into the call.
        let address = frames.first().map_or(0, |frame| frame.address);
        let address = if leaf {
            address
        } else {
            address.saturating_sub(1)
        };
        let mapping_id = self.mapping(report, process, address);
        self.describe_mapping(mapping_id, frames);
        let next = self.profile.location.len() as u64 + 1;
        let key = (process, address, lines);
        if let Some(id) = self.locations.get(&key) {
            return *id;
        }
        self.profile.location.push(Location {
            id: next,
            mapping_id,
            address,
            line: key.2.clone(),
        });
        self.locations.insert(key, next);
        next
    }

    fn mapping(&self, report: &Report, process: usize, address: u64) -> u64 {
        let holds = |index: &usize| {
            let module = &report.modules[*index];
            module.process == process && (module.start..module.end).contains(&address)
        };
        self.mappings
            .iter()
            .position(holds)
            .map_or(0, |position| position as u64 + 1)
    }

    /// Notes what the frames of a mapping are resolved to, so that viewers do
    /// not try again with the files of their own machine.
    fn describe_mapping(&mut self, id: u64, frames: &[Frame]) {
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let Some(mapping) = index.and_then(|index| self.profile.mapping.get_mut(index)) else {
            return;
        };
        mapping.has_functions |= frames.iter().any(|frame| frame.function.is_some());
        mapping.has_filenames |= frames.iter().any(|frame| frame.file.is_some());
        mapping.has_line_numbers |= frames.iter().any(|frame| frame.line.is_some());
        mapping.has_inline_frames |= frames.iter().any(|frame| frame.inlined);
    }

    fn line(&mut self, frame: &Frame) -> Line {
        let label = names::label(frame);
        let name = self.string(&label);
        // Viewers show the name; how the JVM ran a method is for ourselves.
        let system_name = self.string(&java::with_tier(&label, frame.origin));
        let filename = self.string(&names::clean(frame.file.as_deref().unwrap_or("")));
        let next = self.profile.function.len() as u64 + 1;
        let function_id = *self
            .functions
            .entry((name, system_name, filename))
            .or_insert(next);
        if function_id == next {
            let function = Function {
                id: next,
                name,
                system_name,
                filename,
            };
            self.profile.function.push(function);
        }
        Line {
            function_id,
            line: frame.line.unwrap_or(0).into(),
        }
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType {
            r#type: self.string(name),
            unit: self.string(unit),
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(index) = self.strings.get(text) {
            return *index;
        }
        let index = int(self.profile.string_table.len() as u64);
        self.profile.string_table.push(text.into());
        self.strings.insert(text.into(), index);
        index
    }
}

/// Frames (root first) in groups of one frame and those inlined into it.
fn by_address(frames: &[Frame]) -> Vec<&[Frame]> {
    frames.chunk_by(|_, next| next.inlined).collect()
}

/// Matches the allocator's functions, as [`proto`](super::proto::Profile) has
/// it: a viewer then shows who asked for memory, not that malloc gave it.
fn allocators(report: &Report) -> String {
    let leaves = report
        .sites
        .iter()
        .filter_map(|site| site.frames.last()?.function.as_deref());
    let plain = leaves.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    let names: BTreeSet<&str> = plain.chain([OPERATOR_NEW]).collect();
    names.into_iter().collect::<Vec<_>>().join("|")
}

fn comments(report: &Report) -> Vec<String> {
    let mut comments = vec![format!(
        "unfreed {}: {}",
        names::clean(&report.version),
        names::clean(&report.settings.command)
    )];
    for loss in report.occurred_losses() {
        comments.push(format!(
            "lost events: {} × {}: {}",
            units::grouped(loss.count),
            names::clean(&loss.cause),
            names::clean(&loss.meaning)
        ));
    }
    comments
}

fn time_nanos(started: &str) -> i64 {
    let time = humantime::parse_rfc3339_weak(started).ok();
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast from float saturates"
)]
fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
