//! What one profile has beyond another of the same service, as `?seconds=` of Go's profiles
//! has it.

use std::collections::HashMap;
use std::io::Cursor;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message;

use super::proto::{Function, Line, Location, Mapping, Profile, Sample};
use super::read::decoded;
use super::{INUSE_OBJECTS, INUSE_SPACE, PROCESS, THREAD, THREAD_ID};

/// A profile, not compressed, in which viewers show a sample type first.
///
/// # Errors
/// It is no profile.
pub fn show_first(bytes: &[u8], sample_type: &str) -> Result<Vec<u8>> {
    let mut profile = Profile::decode(bytes)?;
    let is_it = |text: &Vec<u8>| text == sample_type.as_bytes();
    let index = profile.string_table.iter().position(is_it);
    profile.default_sample_type = i64::try_from(index.context("it has no such sample type")?)?;
    Ok(profile.encode_to_vec())
}

/// What the profile `now` has beyond `base`, which was taken so long before; both are not
/// compressed. A value that has become less is below zero, a call path of which nothing has
/// changed is left out.
///
/// # Errors
/// One of them is no profile, or they count different things.
pub fn difference(now: &[u8], base: &[u8], time: Duration) -> Result<Vec<u8>> {
    let mut profile = Profile::decode(now)?;
    let base = Profile::decode(base)?;
    ensure!(
        types(&profile) == types(&base),
        "the two profiles count different things"
    );
    let samples = std::mem::take(&mut profile.sample);
    let mut tables = Tables::of(profile);
    let mut sums = Sums::default();
    for sample in samples {
        let own = tables.own(sample);
        sums.add(&own, 1);
    }
    let places = tables.places_of(&base)?;
    for sample in &base.sample {
        let own = tables.translated(sample, &base, &places)?;
        sums.add(&own, -1);
    }
    let mut profile = tables.profile;
    profile.sample = sums.samples;
    profile
        .sample
        .retain(|sample| sample.value.iter().any(|value| *value != 0));
    profile.duration_nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    Ok(profile.encode_to_vec())
}

/// What is left out of a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shrunk {
    /// Call paths that hold less than before.
    pub paths: u64,
    /// By how many bytes.
    pub bytes: u64,
}

/// What has become more in a profile of memory in use, compressed or not, which may be a
/// difference; and what has become less. Of a call path that holds more bytes in fewer blocks
/// the blocks count as none.
///
/// # Errors
/// It is no profile of memory in use.
pub fn grown(bytes: &[u8]) -> Result<(Vec<u8>, Shrunk)> {
    let mut profile = decoded(&mut Cursor::new(bytes))?;
    let index = |name: &str| {
        let mut types = profile.sample_type.iter();
        types.position(|it| string(&profile, it.r#type) == name.as_bytes())
    };
    let space = index(INUSE_SPACE).context("it tells nothing of memory in use")?;
    let objects = index(INUSE_OBJECTS);
    let mut shrunk = Shrunk::default();
    profile.sample.retain_mut(|sample| {
        let bytes = sample.value.get(space).copied().unwrap_or(0);
        if bytes < 0 {
            shrunk.paths += 1;
            shrunk.bytes += bytes.unsigned_abs();
        }
        let count = objects.and_then(|index| sample.value.get_mut(index));
        if let Some(count) = count {
            *count = (*count).max(0);
        }
        bytes >= 0
    });
    Ok((profile.encode_to_vec(), shrunk))
}

fn types(profile: &Profile) -> Vec<&[u8]> {
    let types = profile.sample_type.iter();
    types.map(|it| string(profile, it.r#type)).collect()
}

fn string(profile: &Profile, index: i64) -> &[u8] {
    let index = usize::try_from(index).ok();
    let text = index.and_then(|index| profile.string_table.get(index));
    text.map_or(b"", Vec::as_slice)
}

/// A sample's call path, and its labels: key, text and number.
type SampleKey = (Vec<u64>, Vec<(i64, i64, i64)>);

/// Samples of equal call paths and labels, added up.
#[derive(Default)]
struct Sums {
    samples: Vec<Sample>,
    index: HashMap<SampleKey, usize>,
}

impl Sums {
    fn add(&mut self, sample: &Sample, sign: i64) {
        let labels = sample.label.iter();
        let labels = labels.map(|it| (it.key, it.str, it.num)).collect();
        let key = (sample.location_id.clone(), labels);
        let place = *self.index.entry(key).or_insert_with(|| {
            self.samples.push(Sample {
                value: vec![0; sample.value.len()],
                ..sample.clone()
            });
            self.samples.len() - 1
        });
        let sums = self.samples[place].value.iter_mut();
        for (sum, value) in sums.zip(&sample.value) {
            *sum = sum.saturating_add(value.saturating_mul(sign));
        }
    }
}

/// A function's name, system's name and file.
type FunctionKey = (i64, i64, i64);
/// A location's mapping, address and functions.
type LocationKey = (u64, u64, Vec<Line>);

/// A profile whose tables grow, each entry once.
struct Tables {
    profile: Profile,
    strings: HashMap<Vec<u8>, i64>,
    functions: HashMap<FunctionKey, u64>,
    mappings: HashMap<(i64, u64, u64), u64>,
    locations: HashMap<LocationKey, u64>,
    /// The first of equal locations, for each.
    first: HashMap<u64, u64>,
    /// Keys of labels that tell call paths apart; the others tell of totals.
    kept_labels: Vec<i64>,
}

impl Tables {
    fn of(profile: Profile) -> Self {
        let mut strings = HashMap::new();
        for (index, text) in (0..).zip(&profile.string_table) {
            strings.entry(text.clone()).or_insert(index);
        }
        let functions = profile.function.iter().map(|it| (key_of(it), it.id));
        let mappings = profile.mapping.iter();
        let mappings = mappings.map(|it| ((it.filename, it.memory_start, it.file_offset), it.id));
        let mut locations: HashMap<LocationKey, u64> = HashMap::new();
        let mut first = HashMap::new();
        for it in &profile.location {
            let key = (it.mapping_id, it.address, it.line.clone());
            first.insert(it.id, *locations.entry(key).or_insert(it.id));
        }
        let labels = [PROCESS, THREAD, THREAD_ID].iter();
        Self {
            kept_labels: labels
                .filter_map(|it| strings.get(it.as_bytes()).copied())
                .collect(),
            functions: functions.collect(),
            mappings: mappings.collect(),
            strings,
            locations,
            first,
            profile,
        }
    }

    /// A sample of the profile itself.
    fn own(&self, mut sample: Sample) -> Sample {
        for id in &mut sample.location_id {
            *id = self.first.get(id).copied().unwrap_or(*id);
        }
        sample.label.retain(|it| self.kept_labels.contains(&it.key));
        sample
    }

    /// What the locations of another profile are in this one.
    fn places_of(&mut self, base: &Profile) -> Result<HashMap<u64, u64>> {
        let functions: HashMap<u64, u64> = base
            .function
            .iter()
            .map(|it| Ok((it.id, self.function(base, it)?)))
            .collect::<Result<_>>()?;
        let mappings: HashMap<u64, u64> = base
            .mapping
            .iter()
            .map(|it| Ok((it.id, self.mapping(base, it)?)))
            .collect::<Result<_>>()?;
        let locations = base.location.iter();
        let own = locations.map(|it| {
            let line = it.line.iter().map(|line| Line {
                function_id: functions.get(&line.function_id).copied().unwrap_or(0),
                ..*line
            });
            let own = Location {
                id: 0,
                mapping_id: mappings.get(&it.mapping_id).copied().unwrap_or(0),
                address: it.address,
                line: line.collect(),
            };
            (it.id, self.location(own))
        });
        Ok(own.collect())
    }

    /// A sample of another profile as one of this.
    fn translated(
        &mut self,
        sample: &Sample,
        base: &Profile,
        places: &HashMap<u64, u64>,
    ) -> Result<Sample> {
        let path = sample.location_id.iter().map(|id| places.get(id).copied());
        let path: Option<Vec<u64>> = path.collect();
        let mut own = Sample {
            location_id: path.context("a sample has a location that is not there")?,
            value: sample.value.clone(),
            label: Vec::new(),
        };
        for label in &sample.label {
            let mut label = *label;
            label.key = self.string(string(base, label.key))?;
            label.str = self.string(string(base, label.str))?;
            label.num_unit = self.string(string(base, label.num_unit))?;
            if self.kept_labels.contains(&label.key) {
                own.label.push(label);
            }
        }
        Ok(own)
    }

    fn string(&mut self, text: &[u8]) -> Result<i64> {
        if let Some(index) = self.strings.get(text) {
            return Ok(*index);
        }
        let index = i64::try_from(self.profile.string_table.len())?;
        self.profile.string_table.push(text.to_vec());
        self.strings.insert(text.to_vec(), index);
        Ok(index)
    }

    fn function(&mut self, base: &Profile, function: &Function) -> Result<u64> {
        let mut own = Function {
            id: 0,
            name: self.string(string(base, function.name))?,
            system_name: self.string(string(base, function.system_name))?,
            filename: self.string(string(base, function.filename))?,
        };
        let next = self.profile.function.len() as u64 + 1;
        let id = *self.functions.entry(key_of(&own)).or_insert(next);
        if id == next {
            own.id = id;
            self.profile.function.push(own);
        }
        Ok(id)
    }

    fn mapping(&mut self, base: &Profile, mapping: &Mapping) -> Result<u64> {
        let filename = self.string(string(base, mapping.filename))?;
        let build_id = self.string(string(base, mapping.build_id))?;
        let key = (filename, mapping.memory_start, mapping.file_offset);
        let next = self.profile.mapping.len() as u64 + 1;
        let id = *self.mappings.entry(key).or_insert(next);
        if id == next {
            self.profile.mapping.push(Mapping {
                id,
                filename,
                build_id,
                ..*mapping
            });
        }
        Ok(id)
    }

    fn location(&mut self, mut own: Location) -> u64 {
        let key = (own.mapping_id, own.address, own.line.clone());
        let next = self.profile.location.len() as u64 + 1;
        let id = *self.locations.entry(key).or_insert(next);
        if id == next {
            own.id = id;
            self.profile.location.push(own);
        }
        id
    }
}

fn key_of(function: &Function) -> FunctionKey {
    (function.name, function.system_name, function.filename)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::model::Report;
    use crate::report::pprof::write;
    use crate::report::sample;

    fn profile(report: &Report) -> Vec<u8> {
        let (mut file, mut bytes) = (Vec::new(), Vec::new());
        write(report, &mut file).unwrap();
        GzDecoder::new(file.as_slice())
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }

    fn values(bytes: &[u8]) -> Vec<Vec<i64>> {
        let samples = Profile::decode(bytes).unwrap().sample.into_iter();
        samples.map(|sample| sample.value).collect()
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn what_grew_is_left_and_what_was_there_is_not() {
        let before = sample::report();
        let mut after = before.clone();
        after.sites[0].live_bytes += 7919;
        after.sites[0].live_count += 7;
        let difference = difference(&profile(&after), &profile(&before), MINUTE).unwrap();
        assert_eq!(values(&difference), [vec![0, 0, 7, 7919]]);
        let read = Profile::decode(difference.as_slice()).unwrap();
        assert_eq!(read.duration_nanos, 60_000_000_000);
    }

    #[test]
    fn a_path_that_is_gone_is_below_zero_by_its_name() {
        let before = sample::report();
        let mut after = before.clone();
        let gone = after.sites.remove(0);
        let bytes = difference(&profile(&after), &profile(&before), MINUTE).unwrap();
        let read = Profile::decode(bytes.as_slice()).unwrap();
        assert_eq!(read.sample.len(), 1);
        let live = i64::try_from(gone.live_bytes).unwrap();
        assert_eq!(read.sample[0].value[3], -live);
        // All that it refers to is there.
        let names: Vec<_> = read.sample[0]
            .location_id
            .iter()
            .flat_map(|id| {
                let location = read.location.iter().find(|it| it.id == *id).unwrap();
                location.line.iter().map(|line| {
                    let mut functions = read.function.iter();
                    let function = functions.find(|it| it.id == line.function_id);
                    string(&read, function.unwrap().name).to_vec()
                })
            })
            .collect();
        let functions = gone.frames.iter().filter_map(|it| it.function.as_ref());
        for function in functions.map(|name| name.to_string()) {
            assert!(names.contains(&function.clone().into_bytes()), "{function}");
        }
    }

    #[test]
    fn another_sample_type_can_be_shown_first() {
        let bytes = show_first(&profile(&sample::report()), "alloc_space").unwrap();
        let read = Profile::decode(bytes.as_slice()).unwrap();
        assert_eq!(string(&read, read.default_sample_type), b"alloc_space");
        assert!(show_first(&bytes, "goroutines").is_err());
        assert!(difference(b"no", &bytes, MINUTE).is_err());
    }
}
