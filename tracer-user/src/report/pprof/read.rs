//! A pprof profile, ours or another tool's, as call paths with one value.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use prost::Message;

use super::{budget, proto};
use crate::model::name::{Name, Names};
use crate::model::reading::{MAX_ALL_FRAMES, MAX_FRAMES};
use crate::model::{Frame, Judgement, Origin, Verdict};
use crate::report::{java, names};

/// Bytes a profile may have when it is decompressed.
const MAX_SIZE: u64 = 256 << 20;
/// First bytes of a gzip file (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// One value of a profile at every call path.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Name of the sample type that was chosen: `inuse_space` if there is
    /// one, else the profile's default, else its last.
    pub kind: String,
    /// Its unit, `bytes` for memory.
    pub unit: String,
    /// The call paths.
    pub samples: Vec<Sample>,
    /// How long was profiled, seconds, if the profile says so.
    pub duration: Option<f64>,
    /// Free text.
    pub comments: Vec<String>,
}

/// One call path.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The process, if a label names it.
    pub process: Option<String>,
    /// Root first.
    pub frames: Vec<Frame>,
    /// The value.
    pub value: u64,
    /// How many blocks, if the profile counts them.
    pub count: Option<u64>,
    /// The standard error of the value, if a label has it.
    pub error: u64,
    /// What was said of it, if a label has that, and how sure that is.
    pub judgement: Option<Judgement>,
}

/// Reads a profile, compressed or not.
///
/// # Errors
/// Fails when the bytes are no profile, when the profile is too large, refers
/// to what it does not contain, or has negative values.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Profile> {
    Reader::new(&decoded(file)?)?.read()
}

/// Reads the messages of a profile, compressed or not.
///
/// # Errors
/// Fails when the bytes are no profile, or it is too large.
pub(super) fn decoded(file: &mut (impl Read + Seek)) -> Result<proto::Profile> {
    let begin = file.stream_position()?;
    let mut head = Vec::new();
    file.by_ref()
        .take(GZIP.len() as u64)
        .read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(begin))?;
    let bytes = match head == GZIP {
        true => whole(&mut MultiGzDecoder::new(BufReader::new(file))).context("damaged gzip data"),
        false => whole(file),
    }?;
    budget::check(&bytes)?;
    proto::Profile::decode(bytes.as_slice()).context("not a pprof profile")
}

/// Reads all there is, within bounds.
fn whole(source: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= MAX_SIZE,
        "it has more than {} MiB, the most that is read of a profile",
        MAX_SIZE >> 20
    );
    Ok(bytes)
}

/// Looks up what samples refer to.
pub(super) struct Reader<'a> {
    profile: &'a proto::Profile,
    locations: HashMap<u64, &'a proto::Location>,
    functions: HashMap<u64, &'a proto::Function>,
    mappings: HashMap<u64, &'a proto::Mapping>,
    /// The string table, for frames; none for what is empty.
    names: Vec<Option<Name>>,
    /// Frames that all samples together may still have.
    frames_left: Cell<usize>,
    /// Index of the value that is read.
    value: usize,
    /// Index of the count that goes with it.
    count: Option<usize>,
}

impl<'a> Reader<'a> {
    /// Of a profile.
    ///
    /// # Errors
    /// It has no sample types.
    pub(super) fn new(profile: &'a proto::Profile) -> Result<Self> {
        let mut reader = Self {
            profile,
            locations: profile
                .location
                .iter()
                .map(|location| (location.id, location))
                .collect(),
            functions: profile
                .function
                .iter()
                .map(|function| (function.id, function))
                .collect(),
            mappings: profile
                .mapping
                .iter()
                .map(|mapping| (mapping.id, mapping))
                .collect(),
            names: names_of(&profile.string_table),
            frames_left: Cell::new(MAX_ALL_FRAMES),
            value: 0,
            count: None,
        };
        let Some(last) = profile.sample_type.len().checked_sub(1) else {
            bail!("it has no sample types: not a pprof profile");
        };
        let default = reader.string(profile.default_sample_type);
        let inuse = reader.sample_type(super::INUSE_SPACE);
        reader.value = inuse
            .or_else(|| reader.sample_type(&default))
            .unwrap_or(last);
        reader.count = inuse.and_then(|_| reader.sample_type(super::INUSE_OBJECTS));
        Ok(reader)
    }

    fn read(&self) -> Result<Profile> {
        let value_type = &self.profile.sample_type[self.value];
        let nanos = self.profile.duration_nanos;
        Ok(Profile {
            kind: self.string(value_type.r#type),
            unit: self.string(value_type.unit),
            samples: self
                .profile
                .sample
                .iter()
                .map(|sample| self.sample(sample))
                .collect::<Result<_>>()?,
            duration: (nanos > 0).then_some(nanos as f64 / 1e9),
            comments: self
                .profile
                .comment
                .iter()
                .map(|comment| self.string(*comment))
                .collect(),
        })
    }

    fn sample(&self, sample: &proto::Sample) -> Result<Sample> {
        let mut frames = Vec::new();
        for (depth, id) in sample.location_id.iter().enumerate().rev() {
            self.add_location(&mut frames, *id, depth == 0)?;
            ensure!(
                frames.len() <= MAX_FRAMES,
                "a sample has more than {MAX_FRAMES} frames"
            );
        }
        let left = self.frames_left.get().checked_sub(frames.len());
        self.frames_left.set(left.with_context(|| {
            format!("its samples have more than {MAX_ALL_FRAMES} frames together, the most that are read")
        })?);
        frames.shrink_to_fit();
        let value = |index: usize| {
            let value = *sample.value.get(index).context("a sample lacks a value")?;
            u64::try_from(value).with_context(|| {
                format!("a sample has the value {value}: a difference of profiles cannot be compared again")
            })
        };
        Ok(Sample {
            process: self.process(sample),
            frames,
            value: value(self.value)?,
            count: self.count.map(value).transpose()?,
            error: self.error(sample),
            judgement: self.judgement(sample),
        })
    }

    fn judgement(&self, sample: &proto::Sample) -> Option<Judgement> {
        let label = |key: &str| {
            sample
                .label
                .iter()
                .find(|label| self.string(label.key) == key)
        };
        let verdict = Verdict::of_name(&self.string(label(super::VERDICT)?.str))?;
        let percent = label(super::CONFIDENCE).map_or(0, |label| label.num.clamp(0, 100));
        Some(Judgement {
            verdict,
            confidence: percent as f64 / 100.0,
        })
    }

    /// Adds the frames of a location by its id, the inlined ones after their caller. A
    /// sample's first location is its leaf.
    ///
    /// # Errors
    /// It refers to what there is not, or there are too many.
    pub(super) fn add_location(&self, frames: &mut Vec<Frame>, id: u64, leaf: bool) -> Result<()> {
        let location = self.locations.get(&id);
        let location = location.with_context(|| format!("there is no location {id}"))?;
        self.add_frames(frames, location, leaf)
    }

    fn add_frames(
        &self,
        frames: &mut Vec<Frame>,
        location: &proto::Location,
        leaf: bool,
    ) -> Result<()> {
        let frame = self.frame(location, leaf);
        if location.line.is_empty() {
            frames.push(frame);
            return Ok(());
        }
        for (index, line) in location.line.iter().rev().enumerate() {
            let id = line.function_id;
            let function = self
                .functions
                .get(&id)
                .with_context(|| format!("there is no function {id}"))?;
            let name = [function.name, function.system_name].map(|name| self.name(name));
            let system_name = name[1].as_deref().unwrap_or_default();
            let tier = java::tier_of(system_name).filter(|_| frame.module.is_none());
            ensure!(
                frames.len() < MAX_FRAMES,
                "a sample has more than {MAX_FRAMES} frames"
            );
            frames.push(Frame {
                origin: tier.unwrap_or(frame.origin),
                function: name.into_iter().flatten().next(),
                file: self.name(function.filename),
                line: u32::try_from(line.line).ok().filter(|line| *line > 0),
                inlined: index > 0,
                ..frame.clone()
            });
        }
        Ok(())
    }

    /// A frame that knows its address and module only.
    fn frame(&self, location: &proto::Location, leaf: bool) -> Frame {
        // The address of a caller points into the call: back to the return
        // address, as reports have it.
        let address = location
            .address
            .saturating_add(u64::from(!leaf && location.address > 0));
        let mapping = self.mappings.get(&location.mapping_id);
        let module = mapping.and_then(|mapping| self.name(mapping.filename));
        let offset = mapping.and_then(|mapping| {
            address
                .checked_sub(mapping.memory_start)?
                .checked_add(mapping.file_offset)
        });
        Frame {
            origin: self.origin(location.mapping_id, module.as_deref()),
            module_offset: module.as_ref().and(offset),
            module,
            address,
            ..Frame::default()
        }
    }

    /// Profiles do not say what is the program and what a library: the first
    /// mapping is the program by convention.
    fn origin(&self, mapping: u64, module: Option<&str>) -> Origin {
        let first = self
            .profile
            .mapping
            .first()
            .is_some_and(|first| first.id == mapping);
        match module.map(names::base) {
            None => Origin::Unknown,
            Some(name) if name.ends_with(".so") || name.contains(".so.") => Origin::Library,
            Some(_) if first => Origin::Program,
            Some(_) => Origin::Library,
        }
    }

    fn process(&self, sample: &proto::Sample) -> Option<String> {
        let is_process = |label: &&proto::Label| self.string(label.key) == super::PROCESS;
        let name = self.string(sample.label.iter().find(is_process)?.str);
        Some(name).filter(|name| !name.is_empty())
    }

    /// The standard error of a sample's value; 0 if there is none.
    fn error(&self, sample: &proto::Sample) -> u64 {
        let kind = self.profile.sample_type.get(self.value);
        let key = super::error_label(&kind.map_or_else(String::new, |it| self.string(it.r#type)));
        let is_error = |label: &&proto::Label| self.string(label.key) == key;
        let label = sample.label.iter().find(is_error);
        label.map_or(0, |label| u64::try_from(label.num).unwrap_or(0))
    }

    /// Which value of samples has a name.
    pub(super) fn sample_type(&self, name: &str) -> Option<usize> {
        self.profile
            .sample_type
            .iter()
            .position(|kind| !name.is_empty() && self.string(kind.r#type) == name)
    }

    /// A name by index; an index out of range is none, nor is an empty string.
    fn name(&self, index: i64) -> Option<Name> {
        let index = usize::try_from(index).ok()?;
        self.names.get(index)?.clone()
    }

    /// A string by index; an index out of range is an empty string.
    fn string(&self, index: i64) -> String {
        let bytes = usize::try_from(index)
            .ok()
            .and_then(|index| self.profile.string_table.get(index));
        bytes
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default()
    }
}

fn names_of(strings: &[Vec<u8>]) -> Vec<Option<Name>> {
    let mut names = Names::default();
    let name = |bytes: &Vec<u8>| match bytes.is_empty() {
        true => None,
        false => Some(names.intern(&String::from_utf8_lossy(bytes))),
    };
    strings.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(file: &[u8]) -> Result<Profile> {
        super::read(&mut Cursor::new(file))
    }

    fn strings(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    /// A CPU profile as another tool may write it, without compression.
    fn foreign() -> proto::Profile {
        let kind = |r#type, unit| proto::ValueType { r#type, unit };
        proto::Profile {
            string_table: strings(&["", "samples", "count", "cpu", "nanoseconds", "work"]),
            sample_type: vec![kind(1, 2), kind(3, 4)],
            sample: vec![proto::Sample {
                location_id: vec![9],
                value: vec![1, 250],
                label: vec![],
            }],
            location: vec![proto::Location {
                id: 9,
                line: vec![proto::Line {
                    function_id: 4,
                    line: 0,
                }],
                ..Default::default()
            }],
            function: vec![proto::Function {
                id: 4,
                name: 5,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn error(profile: &proto::Profile) -> String {
        format!("{:#}", read(&profile.encode_to_vec()).unwrap_err())
    }

    #[test]
    fn without_inuse_space_the_default_or_last_type_is_read() {
        let mut profile = foreign();
        let last = read(&profile.encode_to_vec()).unwrap();
        assert_eq!(
            (last.kind.as_str(), last.unit.as_str()),
            ("cpu", "nanoseconds")
        );
        assert_eq!((last.samples[0].value, last.samples[0].count), (250, None));
        assert_eq!(last.samples[0].frames[0].function.as_deref(), Some("work"));
        profile.default_sample_type = 1;
        assert_eq!(read(&profile.encode_to_vec()).unwrap().samples[0].value, 1);
    }

    #[test]
    fn broken_references_are_named() {
        let mut profile = foreign();
        profile.sample[0].location_id = vec![7];
        assert!(error(&profile).contains("there is no location 7"));
        profile.sample[0].location_id = vec![9];
        profile.function.clear();
        assert!(error(&profile).contains("there is no function 4"));
        profile.sample_type.clear();
        assert!(error(&profile).contains("no sample types"));
    }

    #[test]
    fn a_difference_is_refused() {
        let mut profile = foreign();
        profile.sample[0].value = vec![1, -5];
        assert!(error(&profile).contains("the value -5"));
    }

    #[test]
    fn deep_stacks_are_refused() {
        let mut profile = foreign();
        profile.sample[0].location_id = vec![9; MAX_FRAMES + 1];
        assert!(error(&profile).contains("4096 frames"));
    }

    #[test]
    fn damaged_data_is_an_error() {
        assert!(read(b"not a profile").is_err());
        assert!(read(&[0x1f, 0x8b, 8, 0, 1]).is_err());
    }
}
