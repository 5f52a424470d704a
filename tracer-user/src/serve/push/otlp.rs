//! OpenTelemetry profiles (OTLP `v1development` of opentelemetry-proto 1.10.0), from pprof.
//!
//! A window is one resource with two profiles, of blocks and of bytes in use: a profile has
//! one type of value. Index 0 of each table of the dictionary stands for nothing.

use std::collections::HashMap;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development as otlp;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::client::{Client, Failure};
use super::window::{Window, host, string};
use crate::report::pprof::proto::{Label, Profile};

/// The method of gRPC.
const EXPORT: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
/// The path of HTTP, behind the address.
const PATH: &str = "/v1development/profiles";
const CONTENT_TYPE: &str = "application/x-protobuf";

/// Pushes a window by gRPC.
///
/// # Errors
/// It did not arrive.
pub async fn call(client: &Client, window: &Window) -> Result<(), Failure> {
    let request = request(window).map_err(|error| Failure::Refused(format!("{error:#}")))?;
    let answer = client.call(EXPORT, request).await?;
    accepted(&answer)
}

/// Pushes a window by HTTP.
///
/// # Errors
/// It did not arrive.
pub async fn post(client: &Client, window: &Window) -> Result<(), Failure> {
    let request = request(window).map_err(|error| Failure::Refused(format!("{error:#}")))?;
    let answer = client
        .post(PATH, CONTENT_TYPE, request.encode_to_vec())
        .await?;
    let answer = ExportProfilesServiceResponse::decode(answer);
    let answer = answer
        .map_err(|error| Failure::Later(format!("its answer is not OTLP's: {error}"), None))?;
    accepted(&answer)
}

/// What is accepted in part is not to be sent again.
fn accepted(answer: &ExportProfilesServiceResponse) -> Result<(), Failure> {
    match &answer.partial_success {
        Some(part) if part.rejected_profiles != 0 => Err(Failure::Refused(format!(
            "{} of its profiles were rejected: {}",
            part.rejected_profiles, part.error_message
        ))),
        _ => Ok(()),
    }
}

fn request(window: &Window) -> Result<ExportProfilesServiceRequest> {
    let mut dictionary = Dictionary::new(&window.profile)?;
    let profiles = (0..window.profile.sample_type.len())
        .map(|value| dictionary.profile(window, value))
        .collect::<Result<_>>()?;
    let scope = InstrumentationScope {
        name: "unfreed".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    Ok(ExportProfilesServiceRequest {
        resource_profiles: vec![otlp::ResourceProfiles {
            resource: Some(Resource {
                attributes: attributes(window),
                ..Resource::default()
            }),
            scope_profiles: vec![otlp::ScopeProfiles {
                scope: Some(scope),
                profiles,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
        dictionary: Some(dictionary.tables),
    })
}

/// What holds for the whole service, by OpenTelemetry's names.
fn attributes(window: &Window) -> Vec<KeyValue> {
    let mut all = vec![
        ("service.name", window.service.clone()),
        ("host.name", host()),
    ];
    if let [container] = window.containers.as_slice() {
        all.push(("container.id", container.id.clone()));
        let name = match container.pod {
            Some(_) => "k8s.container.name",
            None => "container.name",
        };
        let of = [
            (name, &container.name),
            ("k8s.pod.name", &container.pod),
            ("k8s.pod.uid", &container.pod_id),
            ("k8s.namespace.name", &container.namespace),
        ];
        all.extend(
            of.into_iter()
                .filter_map(|(name, it)| Some((name, it.clone()?))),
        );
    }
    let attribute = |(key, value): (&str, String)| KeyValue {
        key: key.to_owned(),
        value: Some(text(value)),
        ..KeyValue::default()
    };
    all.into_iter().map(attribute).collect()
}

fn text(value: String) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(value)),
    }
}

/// The tables that profiles point into.
struct Dictionary<'a> {
    from: &'a Profile,
    tables: otlp::ProfilesDictionary,
    strings: HashMap<String, i32>,
    stacks: HashMap<Vec<i32>, i32>,
    /// By key, value and unit: a string's, or a number.
    attributes: HashMap<(i32, Result<i64, String>, i32), i32>,
    /// Locations by pprof's ids.
    locations: HashMap<u64, i32>,
}

impl<'a> Dictionary<'a> {
    fn new(from: &'a Profile) -> Result<Self> {
        let mut dictionary = Self {
            from,
            tables: otlp::ProfilesDictionary {
                mapping_table: vec![otlp::Mapping::default()],
                location_table: vec![otlp::Location::default()],
                function_table: vec![otlp::Function::default()],
                link_table: vec![otlp::Link::default()],
                string_table: vec![String::new()],
                attribute_table: vec![otlp::KeyValueAndUnit::default()],
                stack_table: vec![otlp::Stack::default()],
            },
            strings: HashMap::from([(String::new(), 0)]),
            stacks: HashMap::from([(Vec::new(), 0)]),
            attributes: HashMap::new(),
            locations: HashMap::new(),
        };
        let mappings = dictionary.make_mappings()?;
        let functions = dictionary.make_functions()?;
        dictionary.make_locations(&mappings, &functions)?;
        Ok(dictionary)
    }

    fn make_mappings(&mut self) -> Result<HashMap<u64, i32>> {
        let mut places = HashMap::new();
        for mapping in &self.from.mapping {
            let build_id = string(self.from, mapping.build_id);
            let attribute_indices = match build_id.is_empty() {
                true => Vec::new(),
                false => {
                    let key = "process.executable.build_id.gnu";
                    vec![self.attribute(key, Err(build_id), "")?]
                }
            };
            let mapping_of = otlp::Mapping {
                memory_start: mapping.memory_start,
                memory_limit: mapping.memory_limit,
                file_offset: mapping.file_offset,
                filename_strindex: self.string_at(mapping.filename)?,
                attribute_indices,
            };
            places.insert(mapping.id, index(self.tables.mapping_table.len())?);
            self.tables.mapping_table.push(mapping_of);
        }
        Ok(places)
    }

    fn make_functions(&mut self) -> Result<HashMap<u64, i32>> {
        let mut places = HashMap::new();
        for function in &self.from.function {
            let function_of = otlp::Function {
                name_strindex: self.string_at(function.name)?,
                system_name_strindex: self.string_at(function.system_name)?,
                filename_strindex: self.string_at(function.filename)?,
                start_line: 0,
            };
            places.insert(function.id, index(self.tables.function_table.len())?);
            self.tables.function_table.push(function_of);
        }
        Ok(places)
    }

    fn make_locations(
        &mut self,
        mappings: &HashMap<u64, i32>,
        functions: &HashMap<u64, i32>,
    ) -> Result<()> {
        let place = |places: &HashMap<u64, i32>, id| places.get(&id).copied().unwrap_or(0);
        for location in &self.from.location {
            let lines = location.line.iter().map(|line| otlp::Line {
                function_index: place(functions, line.function_id),
                line: line.line,
                column: 0,
            });
            let location_of = otlp::Location {
                mapping_index: place(mappings, location.mapping_id),
                address: location.address,
                lines: lines.collect(),
                attribute_indices: Vec::new(),
            };
            let at = index(self.tables.location_table.len())?;
            self.locations.insert(location.id, at);
            self.tables.location_table.push(location_of);
        }
        Ok(())
    }

    /// The profile of one type of value.
    fn profile(&mut self, window: &Window, value: usize) -> Result<otlp::Profile> {
        let kind = self.from.sample_type[value];
        let mut samples = Vec::new();
        for sample in &self.from.sample {
            let number = sample.value.get(value).copied().unwrap_or(0);
            if number == 0 {
                continue;
            }
            samples.push(otlp::Sample {
                stack_index: self.stack(&sample.location_id)?,
                attribute_indices: self.labels(&sample.label)?,
                values: vec![number],
                ..otlp::Sample::default()
            });
        }
        let mut id = window.id();
        // Each is another one.
        id[15] ^= u8::try_from(value)?;
        Ok(otlp::Profile {
            sample_type: Some(otlp::ValueType {
                type_strindex: self.string_at(kind.r#type)?,
                unit_strindex: self.string_at(kind.unit)?,
            }),
            samples,
            time_unix_nano: window.began.saturating_mul(1_000_000),
            duration_nano: window
                .ended
                .saturating_sub(window.began)
                .saturating_mul(1_000_000),
            profile_id: id.to_vec(),
            ..otlp::Profile::default()
        })
    }

    fn stack(&mut self, locations: &[u64]) -> Result<i32> {
        let place = |id| self.locations.get(id).copied().unwrap_or(0);
        let location_indices: Vec<i32> = locations.iter().map(place).collect();
        if let Some(known) = self.stacks.get(&location_indices) {
            return Ok(*known);
        }
        let at = index(self.tables.stack_table.len())?;
        self.stacks.insert(location_indices.clone(), at);
        self.tables
            .stack_table
            .push(otlp::Stack { location_indices });
        Ok(at)
    }

    fn labels(&mut self, labels: &[Label]) -> Result<Vec<i32>> {
        let mut all = Vec::with_capacity(labels.len());
        for label in labels {
            let key = string(self.from, label.key);
            let key = match key.as_str() {
                "pid" => "process.pid".to_owned(),
                "process" => "process.executable.name".to_owned(),
                "thread" => "thread.name".to_owned(),
                "thread_id" => "thread.id".to_owned(),
                own => format!("unfreed.{own}"),
            };
            let unit = string(self.from, label.num_unit);
            let value = match label.str {
                0 => Ok(label.num),
                at => Err(string(self.from, at)),
            };
            all.push(self.attribute(&key, value, &unit)?);
        }
        Ok(all)
    }

    fn attribute(&mut self, key: &str, value: Result<i64, String>, unit: &str) -> Result<i32> {
        let (key, unit) = (self.string(key)?, self.string(unit)?);
        let all = (key, value, unit);
        if let Some(known) = self.attributes.get(&all) {
            return Ok(*known);
        }
        let value = match all.1.clone() {
            Ok(number) => AnyValue {
                value: Some(Value::IntValue(number)),
            },
            Err(value) => text(value),
        };
        let at = index(self.tables.attribute_table.len())?;
        self.tables.attribute_table.push(otlp::KeyValueAndUnit {
            key_strindex: key,
            value: Some(value),
            unit_strindex: unit,
        });
        self.attributes.insert(all, at);
        Ok(at)
    }

    fn string_at(&mut self, at: i64) -> Result<i32> {
        self.string(&string(self.from, at))
    }

    fn string(&mut self, text: &str) -> Result<i32> {
        if let Some(known) = self.strings.get(text) {
            return Ok(*known);
        }
        let at = index(self.tables.string_table.len())?;
        self.strings.insert(text.to_owned(), at);
        self.tables.string_table.push(text.to_owned());
        Ok(at)
    }
}

fn index(length: usize) -> Result<i32> {
    i32::try_from(length).context("a profile has more entries than OTLP can number")
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesPartialSuccess;

    use super::super::window::tests::window;
    use super::*;

    #[test]
    fn all_that_is_in_use_is_in_the_request() {
        let window = window();
        let request = request(&window).unwrap();
        let profiles = &request.resource_profiles[0].scope_profiles[0].profiles;
        for (value, profile) in profiles.iter().enumerate() {
            let sent: i64 = profile.samples.iter().flat_map(|it| &it.values).sum();
            let had: i64 = window.profile.sample.iter().map(|it| it.value[value]).sum();
            assert_eq!(sent, had);
            assert!(profile.samples.iter().all(|it| it.stack_index != 0));
        }
        assert_ne!(profiles[0].profile_id, profiles[1].profile_id);
        let tables = request.dictionary.unwrap();
        let names: Vec<_> = profiles
            .iter()
            .map(|it| it.sample_type.unwrap().type_strindex)
            .map(|at| &tables.string_table[usize::try_from(at).unwrap()])
            .collect();
        assert_eq!(names, ["inuse_objects", "inuse_space"]);
        assert_eq!(tables.mapping_table[0], otlp::Mapping::default());
        assert_eq!(tables.location_table[0], otlp::Location::default());
    }

    #[test]
    fn what_was_rejected_has_not_arrived() {
        let mut answer = ExportProfilesServiceResponse::default();
        assert!(accepted(&answer).is_ok());
        answer.partial_success = Some(ExportProfilesPartialSuccess {
            rejected_profiles: 1,
            error_message: "no".to_owned(),
        });
        assert!(matches!(accepted(&answer), Err(Failure::Refused(_))));
    }
}
