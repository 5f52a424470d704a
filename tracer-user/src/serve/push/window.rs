//! A window as it is pushed: what was in use at its end, and of what.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result};
use prost::Message;
use serde::Deserialize;

use crate::report::pprof::proto::Profile;
use crate::report::pprof::{INUSE_OBJECTS, INUSE_SPACE};
use crate::serve::container::Container;
use crate::serve::store::Store;

/// One window of one service.
#[derive(Debug)]
pub struct Window {
    /// The service.
    pub service: String,
    /// When it began, milliseconds since 1970.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// The containers of its processes; none if they are in none.
    pub containers: Vec<Container>,
    /// What was in use at its end: values of [`INUSE_OBJECTS`] and [`INUSE_SPACE`] alone,
    /// since what was allocated is of a longer time than the window.
    pub profile: Profile,
}

/// What of a summary is needed.
#[derive(Deserialize)]
struct Times {
    began: u64,
    #[serde(default)]
    containers: Vec<Container>,
}

impl Window {
    /// As it was kept; nothing if it is not kept any more.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn kept(store: &Store, service: &str, ended: u64) -> Result<Option<Self>> {
        let summary = store.summary(service, ended)?;
        let profile = store.profile(service, ended)?;
        let (Some(summary), Some(profile)) = (summary, profile) else {
            return Ok(None);
        };
        let times: Times = serde_json::from_slice(&summary)?;
        let profile = Profile::decode(profile.as_slice())
            .context("a profile that was kept is none any more")?;
        Ok(Some(Self {
            service: service.to_owned(),
            began: times.began,
            ended,
            containers: times.containers,
            profile: in_use(profile, times.began, ended)?,
        }))
    }

    /// A number of this window, the same whenever it is sent: receivers tell by it that they
    /// have it.
    pub fn id(&self) -> [u8; 16] {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, host(), &self.service, self.ended).hash(&mut hasher);
            hasher.finish().to_be_bytes()
        };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&half(0));
        id[8..].copy_from_slice(&half(1));
        id
    }
}

/// This machine's name.
pub fn host() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

/// The string of an index; empty if there is none.
pub fn string(profile: &Profile, index: i64) -> String {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let bytes = profile.string_table.get(index);
    bytes.map_or_else(String::new, |bytes| {
        String::from_utf8_lossy(bytes).into_owned()
    })
}

/// Leaves what is in use, at these times.
fn in_use(mut profile: Profile, began: u64, ended: u64) -> Result<Profile> {
    let places = [INUSE_OBJECTS, INUSE_SPACE].map(|name| {
        let is_it = |kind: &_| string(&profile, type_of(kind)) == name;
        profile.sample_type.iter().position(is_it)
    });
    let [Some(objects), Some(space)] = places else {
        anyhow::bail!("a profile that was kept has no values of what is in use");
    };
    profile.sample_type = vec![profile.sample_type[objects], profile.sample_type[space]];
    for sample in &mut profile.sample {
        let value = |at: usize| sample.value.get(at).copied().unwrap_or(0);
        sample.value = vec![value(objects), value(space)];
    }
    profile
        .sample
        .retain(|sample| sample.value.iter().any(|value| *value != 0));
    profile.time_nanos = nanos(began);
    profile.duration_nanos = nanos(ended.saturating_sub(began));
    Ok(profile)
}

fn type_of(kind: &crate::report::pprof::proto::ValueType) -> i64 {
    kind.r#type
}

fn nanos(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::report::{pprof, sample};
    use crate::serve::gzip;

    /// The window of a report.
    pub fn window() -> Window {
        let report = sample::report();
        let mut packed = Vec::new();
        pprof::write(&report, &mut packed).unwrap();
        let bytes = gzip::unpack(&packed).unwrap();
        let profile = Profile::decode(bytes.as_slice()).unwrap();
        Window {
            service: "web".to_owned(),
            began: 1000,
            ended: 61_000,
            containers: Vec::new(),
            profile: in_use(profile, 1000, 61_000).unwrap(),
        }
    }

    #[test]
    fn only_what_is_in_use_is_left() {
        let window = window();
        let report = sample::report();
        let live: u64 = report.memory().map(|site| site.live_bytes).sum();
        let sent: i64 = window.profile.sample.iter().map(|it| it.value[1]).sum();
        assert_eq!(u64::try_from(sent).unwrap(), live);
        assert_eq!(window.profile.duration_nanos, 60_000_000_000);
        let types: Vec<_> = window.profile.sample_type.iter().map(type_of).collect();
        let names: Vec<_> = types
            .iter()
            .map(|it| string(&window.profile, *it))
            .collect();
        assert_eq!(names, [INUSE_OBJECTS, INUSE_SPACE]);
    }

    #[test]
    fn a_window_has_one_number_however_often_it_is_sent() {
        let first = window();
        let mut second = window();
        assert_eq!(first.id(), second.id());
        second.ended += 1;
        assert_ne!(first.id(), second.id());
    }
}
