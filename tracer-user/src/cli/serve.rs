//! The arguments of `unfreed serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::{duration, size};
use crate::budget::Budget;
use crate::serve::config::{Flags, Mode, Rule};
use crate::serve::listen::Listen;

const EXAMPLES: &str = "\
Examples:
  Watch a process and all of nginx, and ask what grows:
      sudo unfreed serve -p 1234 --command '*nginx*'
      TOKEN=$(sudo cat /var/lib/unfreed/token)
      curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:7411/api/services
  What would this file watch, or where is it wrong?
      sudo unfreed serve --check --config /etc/unfreed.toml

  budget = \"20ms/s\"              # of processor time, or 1% of what is watched uses
  window = \"60s\"                 # a window is closed, and kept, this often
  look = \"5m\"                    # a closer look at what grows lasts so long
  holders = true                 # who holds what leaks is searched for, once it is sure
  holders_budget = \"2s\"          # in so much processor time for each GiB
  scan = \"5s\"                    # new processes are looked for this often
  listen = \"127.0.0.1:7411\"      # or unix:/run/unfreed.sock, or none
  tls_cert = \"/etc/unfreed.pem\"  # with tls_key = \"FILE\": listen at any address then
  state = \"/var/lib/unfreed\"
  [retention]
  size = \"1G\"
  age = \"7d\"
  [[service]]                    # the first that a process matches names its service
  name = \"web\"
  command = \"*nginx*\"            # its arguments; * is any letters
  [[service]]
  unit = \"postgresql*.service\"   # or cgroup = \"/system.slice/*\", pids = [1234]
  [[service]]
  jvm = true                     # every JVM
  [[service]]
  growing = \"64M\"                # whatever has grown so much since it was seen first
  mode = \"closer\"                # or growth: page faults alone; or overhead: all the time
  budget = \"0.5%\"                # of the service's processor time, for closer looks
  holders = false                # its memory is not searched
  [[service]]
  pod = \"web-*\"                  # or container, or namespace; it has the container's name
  [[push]]                       # each window goes there
  to = \"otlp-grpc\"               # or otlp-http, or pyroscope
  url = \"https://collector:4317\"
  token_file = \"/etc/token\"      # also: headers = { X-Scope-OrgID = \"a\" }, ca_file = \"FILE\"
  timeout = \"10s\"
  queue = 1000                   # entries that wait on disk at most; the oldest go
  [[alert]]                      # findings go there, as JSON; also what [[push]] has but `to`
  url = \"https://example.org/hook\"
  confidence = 0.9               # told once, from here on; again when it is known who holds it
  within = \"24h\"                 # and when its forecast is so near, and each time that it halves

SIGHUP reads the file again; one that is wrong is refused, and the old one stays.";

/// `unfreed serve`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// What to watch, and how, in TOML; flags come before what it says
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say what would be watched, or what is wrong with the configuration, and end
    #[arg(long)]
    pub check: bool,
    /// Process to watch (repeatable)
    #[arg(short, long = "pid", value_name = "PID",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pids: Vec<u32>,
    /// Watch processes with such arguments; * is any letters (repeatable)
    #[arg(long = "command", value_name = "PATTERN")]
    commands: Vec<String>,
    /// Watch processes of such control groups (repeatable)
    #[arg(long = "cgroup", value_name = "PATTERN")]
    cgroups: Vec<String>,
    /// Watch processes of such systemd units (repeatable)
    #[arg(long = "unit", value_name = "PATTERN")]
    units: Vec<String>,
    /// Watch every JVM
    #[arg(long)]
    jvms: bool,
    /// Watch whatever has grown so much since it was seen first
    #[arg(long, value_name = "SIZE", value_parser = size)]
    growing: Option<u64>,
    /// What page faults and the tracer may take of processor time: 20ms/s, or 1% of what the
    /// watched processes use [default: 1% of what the host's processors can do]
    #[arg(long, value_name = "BUDGET")]
    overhead: Option<Budget>,
    /// Close a window this often [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    window: Option<Duration>,
    /// Look at the processes of these flags by the allocators' probes, too: never (growth), when
    /// they grow (closer), or all the time (overhead) [default: closer]
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,
    /// A closer look lasts so long [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    look: Option<Duration>,
    /// Answer at 127.0.0.1:PORT or [::1]:PORT, at unix:/PATH, or nowhere: none; with --tls-cert at any
    /// ADDRESS:PORT [default: 127.0.0.1:7411]
    #[arg(long, value_name = "PLACE")]
    listen: Option<Listen>,
    /// Answer with TLS, as this certificate (PEM, with those that it follows from) says who we are;
    /// beyond loopback nothing is answered without. SIGHUP reads it again
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A file with the bearer token [default: made in the folder of --state]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Keep windows in this folder [default: /var/lib/unfreed]
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// No messages but warnings
    #[arg(short, long)]
    pub quiet: bool,
}

impl ServeArgs {
    /// What they say of the configuration.
    pub fn flags(&self) -> Flags {
        Flags {
            rules: self.rules(),
            budget: self.overhead,
            window: self.window,
            look: self.look,
            listen: self.listen.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            token_file: self.token_file.clone(),
            state: self.state.clone(),
        }
    }

    fn rules(&self) -> Vec<Rule> {
        let all = |patterns: &[String], rule: fn(String) -> Rule| {
            patterns.iter().cloned().map(rule).collect::<Vec<_>>()
        };
        let mut rules: Vec<Rule> = self.pids.iter().copied().map(Rule::of_pid).collect();
        rules.extend(all(&self.commands, Rule::of_command));
        rules.extend(all(&self.cgroups, Rule::of_cgroup));
        rules.extend(all(&self.units, Rule::of_unit));
        rules.extend(self.jvms.then(Rule::of_jvms));
        rules.extend(self.growing.map(Rule::of_growing));
        let rules = rules.into_iter();
        rules.map(|rule| rule.with_mode(self.mode)).collect()
    }
}
