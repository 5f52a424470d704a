//! Which processes of the host are services.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use super::config::{Candidate, Depth, Rule};
use super::container::{Container, Names};
use crate::attach::inspect::all_processes;
use crate::jvm::attach::is_jvm;
use crate::process::handle::ProcessHandle;
use crate::process::stat::Stat;
use crate::process::vitals::resident;

/// Of arguments so many bytes are compared.
const MAX_COMMAND: usize = 4096;
/// For so long after a program was executed it is compared again: it has its name before its
/// arguments, and both before its libraries, such as a JVM's.
const SETTLED: Duration = Duration::from_secs(10);

/// A process that is a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its process id.
    pub pid: u32,
    /// When it started, clock ticks since the machine's start.
    pub started: u64,
    /// The service.
    pub service: String,
    /// The path of its control group.
    pub cgroup: String,
    /// The container that it is in.
    pub container: Option<Container>,
    /// How closely it is looked at.
    pub depth: Depth,
}

/// What is known of the host's processes.
#[derive(Debug, Default)]
pub struct Discovery {
    known: HashMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    started: u64,
    /// What it had in memory when it was seen first, bytes.
    resident: u64,
    /// Its short name when it was compared with the rules: a program that is executed
    /// changes it.
    name: String,
    /// When it was seen first with this name.
    named: Instant,
    found: Option<Found>,
}

impl Discovery {
    /// Looks at all processes that are new, or that have become something else, and returns
    /// all that are services now.
    pub fn scan(&mut self, rules: &[Rule]) -> Vec<Found> {
        let growth = rules.iter().filter_map(Rule::growth).min();
        let own = std::process::id();
        let mut now = HashMap::new();
        for pid in all_processes().into_iter().filter(|pid| *pid != own) {
            let Ok(stat) = Stat::read(pid) else {
                continue;
            };
            if stat.is_kernel_thread() {
                continue;
            }
            let before = self.known.remove(&pid);
            let before = before.filter(|known| known.started == stat.started);
            if let Some(known) = look(pid, stat, before, rules, growth) {
                now.insert(pid, known);
            }
        }
        self.known = now;
        let mut found: Vec<Found> = self
            .known
            .values()
            .filter_map(|known| known.found.clone())
            .collect();
        found.sort_unstable_by_key(|found| (found.started, found.pid));
        found
    }

    /// Compares all processes anew at the next scan: the rules are others.
    pub fn forget_decisions(&mut self) {
        for known in self.known.values_mut() {
            known.found = None;
            known.name.clear();
        }
    }
}

/// Looks at a process; nothing if it is gone. `growth` is what it has to have grown by for a
/// rule that asks for that, bytes.
fn look(
    pid: u32,
    Stat { name, started, .. }: Stat,
    before: Option<Known>,
    rules: &[Rule],
    growth: Option<u64>,
) -> Option<Known> {
    if let Some(known) = before.as_ref().filter(|known| known.found.is_some()) {
        debug_assert_eq!(known.started, started);
        return before;
    }
    let in_memory = match growth.is_some() || before.is_none() {
        true => resident(pid)?,
        false => 0,
    };
    let first = before.as_ref().map_or(in_memory, |known| known.resident);
    let same = before.filter(|known| known.name == name);
    let named = same.map_or_else(Instant::now, |known| known.named);
    let mut known = Known {
        started,
        resident: first,
        name,
        named,
        found: None,
    };
    let grown = in_memory.saturating_sub(first);
    if named.elapsed() > SETTLED && growth.is_none_or(|least| grown < least) {
        return Some(known);
    }
    let candidate = candidate(pid, &known, grown, rules)?;
    let rule = rules.iter().find(|rule| rule.matches(&candidate));
    known.found = rule.map(|rule| Found {
        pid,
        started,
        service: rule.service_of(&candidate),
        cgroup: candidate.cgroup.clone(),
        container: candidate.container.clone(),
        depth: rule.depth(),
    });
    Some(known)
}

fn candidate(pid: u32, known: &Known, grown: u64, rules: &[Rule]) -> Option<Candidate> {
    let mut candidate = Candidate {
        pid,
        name: known.name.clone(),
        command: command_of(pid)?,
        cgroup: cgroup_of(&cgroups_of(pid)),
        container: None,
        is_jvm: false,
        grown,
    };
    candidate.container = Names::default().of_cgroup(&candidate.cgroup);
    if rules.iter().any(Rule::asks_for_jvm) {
        let process = ProcessHandle::open(pid).ok()?;
        candidate.is_jvm = is_jvm(&process);
    }
    Some(candidate)
}

/// The control groups of a process, one in each hierarchy; none if it is gone.
fn cgroups_of(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A process's arguments, joined by spaces.
fn command_of(pid: u32) -> Option<String> {
    let mut bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    bytes.truncate(MAX_COMMAND);
    for byte in &mut bytes {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The path of a control group: of version 2, and else of systemd's own hierarchy.
fn cgroup_of(text: &str) -> String {
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let unified = text.lines().find(|line| line.starts_with("0::"));
    let of_systemd = || text.lines().find(|line| line.contains(":name=systemd:"));
    let unified = unified.and_then(path).filter(|path| path != "/");
    unified
        .or_else(|| of_systemd().and_then(path))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// It is killed with this value.
    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _gone = self.0.kill();
            let _reaped = self.0.wait();
        }
    }

    fn sleeper() -> Sleeper {
        Sleeper(Command::new("sleep").arg("7919").spawn().unwrap())
    }

    #[test]
    fn processes_are_found_while_they_live() {
        let rules = [Rule::of_command("sleep 7919".to_owned())];
        let mut discovery = Discovery::default();
        let began = Instant::now();
        let child = sleeper();
        let pid = child.0.id();
        // It calls exec a moment after the fork, and has a name before its arguments.
        let found = std::iter::repeat_with(|| discovery.scan(&rules))
            .take_while(|_| began.elapsed() < Duration::from_secs(60))
            .find_map(|found| found.into_iter().find(|found| found.pid == pid))
            .unwrap();
        assert_eq!(found.service, "sleep");
        let other = [Rule::of_pid(std::process::id())];
        discovery.forget_decisions();
        assert_eq!(discovery.scan(&other), []);
        drop(child);
        discovery.forget_decisions();
        let left = discovery.scan(&rules);
        assert!(left.iter().all(|found| found.pid != pid));
    }

    #[test]
    fn control_groups_of_both_versions_are_read() {
        assert_eq!(cgroup_of("0::/a.slice/b.service\n"), "/a.slice/b.service");
        let both = "4:memory:/x\n1:name=systemd:/c.service\n0::/\n";
        assert_eq!(cgroup_of(both), "/c.service");
        assert_eq!(cgroup_of(""), "");
    }
}
