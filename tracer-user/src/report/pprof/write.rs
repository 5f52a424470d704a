//! A report as a pprof profile.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::mem::{Discriminant, discriminant};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use prost::Message;

use super::SAMPLED;
use super::proto::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use crate::model::name::Name;
use crate::model::sampling::rounded;
use crate::model::{Errors, Frame, MemoryKind, Origin, Report, Site};
use crate::report::{held_by, java, names, units};

/// Sample types and units, in the order of Go's heap profiles.
const SAMPLE_TYPES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    (super::ALLOC_SPACE, "bytes"),
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
    let file = GzBuilder::new().write(writer, Compression::default());
    let file = Writer::new(report, file).write()?;
    file.finish().context("cannot compress the profile")?;
    Ok(())
}

/// Fields of [`Profile`], which are written as soon as they are known: its
/// tables can be much larger than the report.
mod field {
    pub(super) const SAMPLE: u32 = 2;
    pub(super) const MAPPING: u32 = 3;
    pub(super) const LOCATION: u32 = 4;
    pub(super) const FUNCTION: u32 = 5;
    pub(super) const STRING: u32 = 6;
}

/// Writes samples, and what is new in them.
struct Writer<'a, W> {
    report: &'a Report,
    file: W,
    buffer: Vec<u8>,
    strings: HashMap<Box<str>, i64>,
    /// By name, system's name and file.
    functions: HashMap<(i64, i64, i64), u64>,
    /// The same by what a frame says, which need not be read for each: its
    /// function's and its file's name.
    named: HashMap<(usize, Discriminant<Origin>, Option<usize>), u64>,
    /// By process, address and lines.
    locations: HashMap<(usize, u64, Box<[Line]>), u64>,
    /// In order of ids; written last, since locations tell what is known of
    /// them.
    mappings: Vec<Mapping>,
    /// Index into the report's modules of each mapping.
    modules: Vec<usize>,
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(report: &'a Report, file: W) -> Self {
        Self {
            report,
            file,
            buffer: Vec::new(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            named: HashMap::new(),
            locations: HashMap::new(),
            mappings: Vec::new(),
            modules: Vec::new(),
        }
    }

    fn write(mut self) -> io::Result<W> {
        self.string("")?;
        let head = self.head()?;
        self.file.write_all(&head.encode_to_vec())?;
        self.make_mappings()?;
        let report = self.report;
        for site in report.memory().filter(|site| site.allocated_count > 0) {
            let sample = self.sample(site)?;
            self.emit(field::SAMPLE, &sample)?;
        }
        for mapping in std::mem::take(&mut self.mappings) {
            self.emit(field::MAPPING, &mapping)?;
        }
        let end = Profile {
            drop_frames: self.string(&allocators(report))?,
            comment: comments(report)
                .iter()
                .map(|comment| self.string(comment))
                .collect::<io::Result<_>>()?,
            time_nanos: time_nanos(&report.started),
            duration_nanos: nanos(report.duration),
            ..Profile::default()
        };
        self.file.write_all(&end.encode_to_vec())?;
        Ok(self.file)
    }

    /// What the values mean.
    fn head(&mut self) -> io::Result<Profile> {
        let mut sample_type = Vec::new();
        for (name, unit) in SAMPLE_TYPES {
            sample_type.push(self.value_type(name, unit)?);
        }
        Ok(Profile {
            sample_type,
            default_sample_type: self.string(super::INUSE_SPACE)?,
            period_type: Some(self.value_type("space", "bytes")?),
            // As Go's heap profiles have it: bytes from sample to sample.
            period: self.report.sampling.map_or(1, |it| int(it.interval.max(1))),
            ..Profile::default()
        })
    }

    /// Writes one record of a table.
    fn emit(&mut self, field: u32, record: &impl Message) -> io::Result<()> {
        self.buffer.clear();
        prost::encoding::message::encode(field, record, &mut self.buffer);
        self.file.write_all(&self.buffer)
    }

    /// Makes the mappings; viewers take the first for the main program.
    fn make_mappings(&mut self) -> io::Result<()> {
        let report = self.report;
        let is_library = |index: &usize| {
            let module = &report.modules[*index];
            let process = report.processes.get(module.process);
            process.is_none_or(|process| process.executable != module.path)
        };
        self.modules = (0..report.modules.len()).collect();
        self.modules.sort_by_key(is_library);
        for (position, index) in self.modules.clone().into_iter().enumerate() {
            let module = &report.modules[index];
            let mapping = Mapping {
                id: position as u64 + 1,
                memory_start: module.start,
                memory_limit: module.end,
                file_offset: module.file_offset,
                filename: self.string(&names::clean(&module.path))?,
                build_id: self.string(&names::clean(module.build_id.as_deref().unwrap_or("")))?,
                ..Mapping::default()
            };
            self.mappings.push(mapping);
        }
        Ok(())
    }

    fn sample(&mut self, site: &Site) -> io::Result<Sample> {
        let groups = by_address(&site.frames);
        let leaf = groups.len().saturating_sub(1);
        let mut location_id = Vec::with_capacity(groups.len());
        for (index, frames) in groups.iter().enumerate() {
            location_id.push(self.location(site.process, frames, index == leaf)?);
        }
        location_id.reverse();
        let values = [
            site.allocated_count,
            site.allocated_bytes,
            site.live_count,
            site.live_bytes,
        ];
        Ok(Sample {
            location_id,
            value: values.map(int).to_vec(),
            label: self.labels(site)?,
        })
    }

    fn labels(&mut self, site: &Site) -> io::Result<Vec<Label>> {
        let kind = match site.kind {
            MemoryKind::Heap => "heap",
            MemoryKind::Mapping => "mapping",
            MemoryKind::FileMapping => "file_mapping",
            MemoryKind::ThreadStack => "thread_stack",
            MemoryKind::JavaHeap => "java_heap",
            MemoryKind::JniHandle => "jni_handle",
            MemoryKind::Thread => "thread",
            MemoryKind::Page => "page",
        };
        let mut labels = vec![self.text_label("kind", kind)?];
        if let Some(process) = self.report.processes.get(site.process) {
            labels.push(self.text_label(super::PROCESS, &names::clean(&process.name))?);
            // A number of processes is none's.
            labels.push(match process.processes {
                0 | 1 => self.number_label("pid", process.pid)?,
                _ => self.number_label(
                    "processes",
                    u32::try_from(site.processes).unwrap_or(u32::MAX),
                )?,
            });
        }
        if let Some(verdict) = site.verdict {
            labels.push(self.text_label(super::VERDICT, verdict.name())?);
            let percent = 100.0 * site.confidence.unwrap_or(0.0);
            labels.push(Label {
                key: self.string(super::CONFIDENCE)?,
                str: 0,
                num: int(rounded(percent.clamp(0.0, 100.0))),
                num_unit: self.string("percent")?,
            });
        }
        if let Some(holders) = &site.holders {
            let root = holders.chains.first().and_then(|it| it.links.first());
            let named = root.map(held_by::holder);
            let lost = (holders.lost > 0).then(|| "lost".to_owned());
            if let Some(name) = named.or(lost) {
                labels.push(self.text_label(super::HELD_BY, &name)?);
            }
        }
        if let Some(thread) = &site.thread {
            labels.push(self.text_label(super::THREAD, &names::clean(&thread.name))?);
            labels.push(self.number_label(super::THREAD_ID, thread.id)?);
        }
        if let Some(errors) = &site.errors {
            labels.extend(self.error_labels(errors)?);
        }
        Ok(labels)
    }

    /// The standard errors of a sample's values, and how many blocks they are made of.
    fn error_labels(&mut self, errors: &Errors) -> io::Result<Vec<Label>> {
        let errors = [
            (SAMPLE_TYPES[0], errors.allocated_count),
            (SAMPLE_TYPES[1], errors.allocated_bytes),
            (SAMPLE_TYPES[2], errors.live_count),
            (SAMPLE_TYPES[3], errors.live_bytes),
            (("sampled", "count"), errors.samples as f64),
        ];
        let mut labels = Vec::new();
        for ((name, unit), error) in errors {
            let key = match name {
                "sampled" => name.to_owned(),
                value => super::error_label(value),
            };
            labels.push(Label {
                key: self.string(&key)?,
                str: 0,
                num: int(rounded(error.ceil())),
                num_unit: self.string(unit)?,
            });
        }
        Ok(labels)
    }

    fn text_label(&mut self, key: &str, text: &str) -> io::Result<Label> {
        Ok(Label {
            key: self.string(key)?,
            str: self.string(text)?,
            num: 0,
            num_unit: 0,
        })
    }

    fn number_label(&mut self, key: &str, number: u32) -> io::Result<Label> {
        Ok(Label {
            key: self.string(key)?,
            str: 0,
            num: number.into(),
            num_unit: 0,
        })
    }

    /// The location of a frame and the frames inlined into it.
    fn location(&mut self, process: usize, frames: &[Frame], leaf: bool) -> io::Result<u64> {
        let named = frames.iter().rev().filter(|frame| frame.function.is_some());
        let lines = named.map(|frame| self.line(frame));
        let lines = lines.collect::<io::Result<Box<[Line]>>>()?;
        // A return address may be the next function's: point into the call.
        let address = frames.first().map_or(0, |frame| frame.address);
        let address = if leaf {
            address
        } else {
            address.saturating_sub(1)
        };
        let mapping_id = self.mapping(process, address);
        self.describe_mapping(mapping_id, frames);
        let next = self.locations.len() as u64 + 1;
        let key = (process, address, lines);
        if let Some(id) = self.locations.get(&key) {
            return Ok(*id);
        }
        let location = Location {
            id: next,
            mapping_id,
            address,
            line: key.2.to_vec(),
        };
        self.emit(field::LOCATION, &location)?;
        self.locations.insert(key, next);
        Ok(next)
    }

    fn mapping(&self, process: usize, address: u64) -> u64 {
        let holds = |index: &usize| {
            let module = &self.report.modules[*index];
            module.process == process && (module.start..module.end).contains(&address)
        };
        self.modules
            .iter()
            .position(holds)
            .map_or(0, |position| position as u64 + 1)
    }

    /// Notes what the frames of a mapping are resolved to, so that viewers do
    /// not try again with the files of their own machine.
    fn describe_mapping(&mut self, id: u64, frames: &[Frame]) {
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let Some(mapping) = index.and_then(|index| self.mappings.get_mut(index)) else {
            return;
        };
        mapping.has_functions |= frames.iter().any(|frame| frame.function.is_some());
        mapping.has_filenames |= frames.iter().any(|frame| frame.file.is_some());
        mapping.has_line_numbers |= frames.iter().any(|frame| frame.line.is_some());
        mapping.has_inline_frames |= frames.iter().any(|frame| frame.inlined);
    }

    fn line(&mut self, frame: &Frame) -> io::Result<Line> {
        Ok(Line {
            function_id: self.function(frame)?,
            line: frame.line.unwrap_or(0).into(),
        })
    }

    fn function(&mut self, frame: &Frame) -> io::Result<u64> {
        let file = frame.file.as_ref().map(Name::id);
        let named = frame.function.as_ref().filter(|name| !name.is_empty());
        let named = named.map(|name| (name.id(), discriminant(&frame.origin), file));
        if let Some(id) = named.and_then(|key| self.named.get(&key)) {
            return Ok(*id);
        }
        let id = self.described(frame)?;
        if let Some(key) = named {
            self.named.insert(key, id);
        }
        Ok(id)
    }

    fn described(&mut self, frame: &Frame) -> io::Result<u64> {
        let label = names::label(frame);
        let name = self.string(&label)?;
        // Viewers show the name; how the JVM ran a method is for ourselves.
        let system_name = self.string(&java::with_tier(&label, frame.origin))?;
        let filename = self.string(&names::clean(frame.file.as_deref().unwrap_or("")))?;
        let next = self.functions.len() as u64 + 1;
        let key = (name, system_name, filename);
        let function_id = *self.functions.entry(key).or_insert(next);
        if function_id == next {
            let function = Function {
                id: next,
                name,
                system_name,
                filename,
            };
            self.emit(field::FUNCTION, &function)?;
        }
        Ok(function_id)
    }

    fn value_type(&mut self, name: &str, unit: &str) -> io::Result<ValueType> {
        Ok(ValueType {
            r#type: self.string(name)?,
            unit: self.string(unit)?,
        })
    }

    fn string(&mut self, text: &str) -> io::Result<i64> {
        if let Some(index) = self.strings.get(text) {
            return Ok(*index);
        }
        let index = int(self.strings.len() as u64);
        self.strings.insert(text.into(), index);
        self.buffer.clear();
        prost::encoding::string::encode(field::STRING, &text.to_owned(), &mut self.buffer);
        self.file.write_all(&self.buffer)?;
        Ok(index)
    }
}

/// Frames (root first) in groups of one frame and those inlined into it.
fn by_address(frames: &[Frame]) -> Vec<&[Frame]> {
    frames.chunk_by(|_, next| next.inlined).collect()
}

/// Matches the allocator's functions, as [`proto`](super::proto::Profile) has
/// it: a viewer then shows who asked for memory, not that malloc gave it. What touched a
/// page is no allocator.
fn allocators(report: &Report) -> String {
    let asked = report.sites.iter();
    let asked = asked.filter(|site| site.kind != MemoryKind::Page);
    let leaves = asked.filter_map(|site| site.frames.last()?.function.as_deref());
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
    if let Some(sampling) = &report.sampling {
        comments.push(format!(
            "{SAMPLED}: values of heap samples are estimates {}, of {}; *_standard_error labels have their standard errors; {} live in all, with a standard error of {}",
            sampling.how(),
            units::counted(sampling.errors.samples, "block"),
            units::bytes(report.totals.live_bytes),
            units::bytes(rounded(sampling.errors.live_bytes))
        ));
    }
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
