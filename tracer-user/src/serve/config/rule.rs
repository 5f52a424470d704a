//! What of a host is a service.

use std::fmt;

use serde::Deserialize;

use super::depth::{Depth, Mode};
use super::setting::{Part, Size};
use crate::pattern::is_like;
use crate::serve::container::Container;

/// A name of more bytes is no service's.
const MAX_NAME: usize = 128;

/// Processes that are a service: those of which all holds that is said here. Patterns have
/// `*` for any letters.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Rule {
    fields: Fields,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    name: Option<String>,
    pids: Vec<u32>,
    command: Option<String>,
    cgroup: Option<String>,
    unit: Option<String>,
    container: Option<String>,
    pod: Option<String>,
    namespace: Option<String>,
    jvm: bool,
    growing: Option<Size>,
    mode: Option<Mode>,
    budget: Option<Part>,
    holders: Option<bool>,
}

impl Fields {
    fn patterns(&self) -> [(&'static str, &Option<String>); 6] {
        [
            ("command", &self.command),
            ("cgroup", &self.cgroup),
            ("unit", &self.unit),
            ("container", &self.container),
            ("pod", &self.pod),
            ("namespace", &self.namespace),
        ]
    }
}

impl TryFrom<Fields> for Rule {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let rule = Self { fields };
        if rule.says_nothing() {
            return Err(
                "this service says nothing of its processes: add pids, command, cgroup, unit, container, pod, namespace, jvm or growing"
                    .to_owned(),
            );
        }
        match &rule.fields.name {
            Some(name) if name.is_empty() || name.len() > MAX_NAME => {
                Err(format!("a service's name has 1 to {MAX_NAME} bytes"))
            }
            _ => Ok(rule),
        }
    }
}

/// What is known of a process that may be of a service.
#[derive(Debug, Clone, Default)]
pub struct Candidate {
    /// Its process id.
    pub pid: u32,
    /// Its short name.
    pub name: String,
    /// Its arguments, joined by spaces.
    pub command: String,
    /// The path of its control group; of version 2, or of systemd's hierarchy.
    pub cgroup: String,
    /// The container that it is in.
    pub container: Option<Container>,
    /// Whether it has a JVM in it, if that was looked for.
    pub is_jvm: bool,
    /// By how many bytes its resident set has grown since it was seen first.
    pub grown: u64,
}

impl Candidate {
    /// The systemd unit that it is of: the last part of its control group's path that is a
    /// service or a scope.
    pub fn unit(&self) -> Option<&str> {
        let mut parts = self.cgroup.rsplit('/');
        parts.find(|part| part.ends_with(".service") || part.ends_with(".scope"))
    }
}

impl Rule {
    /// One process.
    pub fn of_pid(pid: u32) -> Self {
        Self::of(|fields| fields.pids.push(pid))
    }

    /// Processes with such arguments.
    pub fn of_command(pattern: String) -> Self {
        Self::of(|fields| fields.command = Some(pattern))
    }

    /// Processes of such control groups.
    pub fn of_cgroup(pattern: String) -> Self {
        Self::of(|fields| fields.cgroup = Some(pattern))
    }

    /// Processes of such systemd units.
    pub fn of_unit(pattern: String) -> Self {
        Self::of(|fields| fields.unit = Some(pattern))
    }

    /// All JVMs.
    pub fn of_jvms() -> Self {
        Self::of(|fields| fields.jvm = true)
    }

    /// Whatever has grown by so many bytes.
    pub fn of_growing(bytes: u64) -> Self {
        Self::of(|fields| fields.growing = Some(Size(bytes)))
    }

    fn of(set: impl FnOnce(&mut Fields)) -> Self {
        let mut fields = Fields::default();
        set(&mut fields);
        Self { fields }
    }

    fn says_nothing(&self) -> bool {
        let fields = &self.fields;
        fields.pids.is_empty()
            && fields.patterns().iter().all(|(_, text)| text.is_none())
            && !fields.jvm
            && fields.growing.is_none()
    }

    /// The same, looked at so closely.
    #[must_use]
    pub fn with_mode(mut self, mode: Option<Mode>) -> Self {
        self.fields.mode = mode.or(self.fields.mode);
        self
    }

    /// How closely its service is looked at.
    pub fn depth(&self) -> Depth {
        let usual = Depth::default();
        Depth {
            mode: self.fields.mode.unwrap_or(usual.mode),
            budget: self.fields.budget.map_or(usual.budget, |part| part.0),
            holders: self.fields.holders,
        }
    }

    /// Whether it asks for JVMs, which takes a look at what a process has mapped.
    pub fn asks_for_jvm(&self) -> bool {
        self.fields.jvm
    }

    /// By how many bytes a process has to have grown, if it asks for that, which has to be
    /// looked at again and again.
    pub fn growth(&self) -> Option<u64> {
        self.fields.growing.map(|least| least.0)
    }

    fn asks_for_container(&self) -> bool {
        let fields = &self.fields;
        let texts = [&fields.container, &fields.pod, &fields.namespace];
        texts.iter().any(|text| text.is_some())
    }

    /// Whether a process is of this service.
    pub fn matches(&self, candidate: &Candidate) -> bool {
        let Fields {
            name: _,
            pids,
            command,
            cgroup,
            unit,
            container,
            pod,
            namespace,
            jvm,
            growing,
            mode: _,
            budget: _,
            holders: _,
        } = &self.fields;
        let is = |pattern: &Option<String>, text: &str| {
            pattern
                .as_ref()
                .is_none_or(|pattern| is_like(pattern, text))
        };
        let container_is = |pattern: &Option<String>, name: fn(&Container) -> &Option<String>| {
            let name = candidate.container.as_ref().map(name);
            is(pattern, name.and_then(Option::as_deref).unwrap_or_default())
        };
        (pids.is_empty() || pids.contains(&candidate.pid))
            && is(command, &candidate.command)
            && is(cgroup, &candidate.cgroup)
            && is(unit, candidate.unit().unwrap_or_default())
            && container_is(container, |it| &it.name)
            && container_is(pod, |it| &it.pod)
            && container_is(namespace, |it| &it.namespace)
            && (!*jvm || candidate.is_jvm)
            && growing.is_none_or(|least| candidate.grown >= least.0)
    }

    /// What the service of a process that matches is called: as the rule says, and else by
    /// its container or its systemd unit if the rule is about one, and else by its short name.
    pub fn service_of(&self, candidate: &Candidate) -> String {
        if let Some(name) = &self.fields.name {
            return name.clone();
        }
        let unit = self.fields.unit.as_ref().and_then(|_| candidate.unit());
        let container = match self.asks_for_container() {
            true => candidate
                .container
                .as_ref()
                .and_then(|it| it.name.as_deref()),
            false => None,
        };
        let name = container.or(unit).unwrap_or(&candidate.name);
        match name.is_empty() {
            true => format!("pid-{}", candidate.pid),
            false => name.chars().take(MAX_NAME / 4).collect(),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = &self.fields;
        let mut said = Vec::new();
        if !fields.pids.is_empty() {
            said.push(format!("pids {:?}", fields.pids));
        }
        for (what, pattern) in fields.patterns() {
            said.extend(pattern.iter().map(|pattern| format!("{what} {pattern:?}")));
        }
        if fields.jvm {
            said.push("every JVM".to_owned());
        }
        if let Some(Size(bytes)) = fields.growing {
            let bytes = indicatif::HumanBytes(bytes);
            said.push(format!("whatever grows by {bytes}"));
        }
        said.push(format!("mode {}", self.depth()));
        match &fields.name {
            Some(name) => write!(f, "{name}: {}", said.join(", ")),
            None => f.write_str(&said.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        toml::from_str(text).unwrap()
    }

    fn candidate() -> Candidate {
        Candidate {
            pid: 7,
            name: "nginx".to_owned(),
            command: "nginx: worker process".to_owned(),
            cgroup: "/system.slice/nginx.service".to_owned(),
            container: Some(Container {
                id: "0".to_owned(),
                name: Some("main".to_owned()),
                pod: Some("web-5d-x".to_owned()),
                namespace: Some("shop".to_owned()),
                pod_id: None,
            }),
            is_jvm: false,
            grown: 4096,
        }
    }

    #[test]
    fn all_that_is_said_has_to_hold() {
        for (text, holds) in [
            ("pids = [7]", true),
            ("pids = [8]", false),
            ("command = \"nginx: *\"", true),
            ("command = \"nginx: *\"\nunit = \"nginx.service\"", true),
            ("command = \"nginx: *\"\nunit = \"other.service\"", false),
            ("cgroup = \"/system.slice/*\"", true),
            ("pod = \"web-*\"\nnamespace = \"shop\"", true),
            ("pod = \"db-*\"", false),
            ("container = \"main\"", true),
            ("jvm = true", false),
            ("growing = \"4k\"", true),
            ("growing = \"8k\"", false),
        ] {
            assert_eq!(rule(text).matches(&candidate()), holds, "{text}");
        }
    }

    #[test]
    fn a_service_has_the_name_that_says_most() {
        let name = |text: &str| rule(text).service_of(&candidate());
        assert_eq!(name("name = \"web\"\npids = [7]"), "web");
        assert_eq!(name("unit = \"ng*\""), "nginx.service");
        assert_eq!(name("pod = \"web-*\""), "main");
        assert_eq!(name("pids = [7]"), "nginx");
    }

    #[test]
    fn each_rule_says_how_closely_to_look() {
        let depth = |text: &str| rule(&format!("pids = [7]\n{text}")).depth();
        assert_eq!(depth(""), Depth::default());
        let asked = depth("mode = \"overhead\"\nbudget = \"0.5%\"");
        assert_eq!(asked.to_string(), "overhead (0.5%)");
        let without = depth("holders = false");
        assert_eq!(without.to_string(), "closer (1%), no holders searched");
        assert_eq!(depth("mode = \"growth\"").mode, Mode::Growth);
        let of_flags = rule("pids = [7]").with_mode(Some(Mode::Growth));
        assert_eq!(of_flags.depth().mode, Mode::Growth);
    }

    /// A scope is a unit, too; a slice is none.
    #[test]
    fn units_are_services_and_scopes() {
        let unit = |cgroup: &str| {
            let cgroup = cgroup.to_owned();
            let candidate = Candidate {
                cgroup,
                ..candidate()
            };
            candidate.unit().map(str::to_owned)
        };
        assert_eq!(unit("/user.slice").as_deref(), None);
        assert_eq!(unit("/a.slice/b.scope/c").as_deref(), Some("b.scope"));
    }
}
