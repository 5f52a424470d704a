//! What `unfreed serve` is to do: a TOML file, and the same as flags.

mod depth;
mod destination;
mod rule;
mod setting;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use self::setting::{Part, Size, Span};
use super::listen::Listen;
use crate::budget::Budget;
use crate::holders::Allowance;

pub use self::depth::{Depth, Mode};
use self::destination::CONFIDENCE;
pub use self::destination::{Alert, Place, Protocol, Push};
pub use self::rule::{Candidate, Rule};

/// A file of more bytes is none of ours.
const MAX_BYTES: u64 = 8 << 20;
/// Rules at most: each process that begins is compared with all of them.
const MAX_RULES: usize = 10_000;

/// Destinations at most: each has a queue, and a connection.
const MAX_DESTINATIONS: usize = 16;

/// One search for holders takes at most what the host's budget gives in this time.
const SEARCHED_FOR: Duration = Duration::from_mins(10);

/// Blocks of a process from before a look whose bounds are kept while it searches: 90 MiB.
const SEARCHED_BLOCKS: usize = 1 << 20;

/// How who holds what leaks is searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Searching {
    /// What a search may take.
    pub allowed: Allowance,
    /// From this confidence on a finding is searched for: the least that an alert has.
    pub confidence: f64,
    /// What the host's budget gives in a second, seconds.
    pub rate: f64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What page faults and the tracer's own time may take together.
    budget: Part,
    /// A window is closed this often.
    window: Span,
    /// New processes are looked for this often.
    scan: Span,
    /// How long a closer look lasts.
    look: Span,
    /// Whether who holds what leaks is searched for in closer looks.
    holders: bool,
    /// Processor time for each GiB that is searched.
    holders_budget: Span,
    /// Where others may ask.
    pub listen: Listen,
    /// The certificate of who answers, and those that it follows from, as PEM.
    tls_cert: Option<PathBuf>,
    /// Its key, as PEM.
    tls_key: Option<PathBuf>,
    /// The bearer token, if it is in a file of the user's.
    pub token_file: Option<PathBuf>,
    /// Users that may connect to a unix socket, beside root and ourselves.
    pub users: Vec<u32>,
    /// Where windows are kept.
    pub state: PathBuf,
    /// For how long.
    retention: Retention,
    /// What is watched; the first rule that a process matches names its service.
    #[serde(rename = "service")]
    pub rules: Vec<Rule>,
    /// Where windows are pushed to.
    #[serde(rename = "push")]
    pub pushes: Vec<Push>,
    /// Where findings are told.
    #[serde(rename = "alert")]
    pub alerts: Vec<Alert>,
}

/// What flags say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// Rules, which come before those of the file.
    pub rules: Vec<Rule>,
    /// See [`Config::budget`].
    pub budget: Option<Budget>,
    /// See [`Config::window`].
    pub window: Option<Duration>,
    /// See [`Config::look`].
    pub look: Option<Duration>,
    /// See [`Config::listen`].
    pub listen: Option<Listen>,
    /// See [`Config::tls_cert`].
    pub tls_cert: Option<PathBuf>,
    /// See [`Config::tls_key`].
    pub tls_key: Option<PathBuf>,
    /// See [`Config::token_file`].
    pub token_file: Option<PathBuf>,
    /// See [`Config::state`].
    pub state: Option<PathBuf>,
}

impl Flags {
    fn change(self, config: &mut Config) {
        config.rules.splice(0..0, self.rules);
        if let Some(budget) = self.budget {
            config.budget = Part(budget);
        }
        if let Some(window) = self.window {
            config.window = Span(window);
        }
        if let Some(look) = self.look {
            config.look = Span(look);
        }
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(state) = self.state {
            config.state = state;
        }
        for (flag, setting) in [
            (self.tls_cert, &mut config.tls_cert),
            (self.tls_key, &mut config.tls_key),
            (self.token_file, &mut config.token_file),
        ] {
            *setting = flag.or(setting.take());
        }
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Retention {
    /// Bytes at most.
    size: Size,
    /// How old at most.
    age: Span,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            size: Size(1 << 30),
            age: Span(Duration::from_hours(7 * 24)),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: Part(budget_of_host()),
            window: Span(Duration::from_mins(1)),
            scan: Span(Duration::from_secs(5)),
            look: Span(Duration::from_mins(5)),
            holders: true,
            holders_budget: Span(Duration::from_secs(2)),
            listen: Listen::default(),
            tls_cert: None,
            tls_key: None,
            token_file: None,
            users: Vec::new(),
            state: PathBuf::from("/var/lib/unfreed"),
            retention: Retention::default(),
            rules: Vec::new(),
            pushes: Vec::new(),
            alerts: Vec::new(),
        }
    }
}

/// One part in a hundred of what the host's processors can do.
fn budget_of_host() -> Budget {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let processors = u32::try_from(processors).unwrap_or(u32::MAX).min(100);
    Budget::PerSecond(processors * Duration::from_millis(10))
}

impl Config {
    /// From the file, if there is one, and the flags, which come before what it says.
    ///
    /// # Errors
    /// Says the line and what is wrong with it.
    pub fn new(file: Option<&Path>, flags: Flags) -> Result<Self> {
        let mut config = match file {
            Some(path) => Self::of_file(path)?,
            None => Self::default(),
        };
        flags.change(&mut config);
        config.check()?;
        Ok(config)
    }

    fn of_file(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let mut text = String::new();
        file.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {shown}"))?;
        ensure!(
            text.len() as u64 <= MAX_BYTES,
            "{shown} has more than 8 MiB: it is no configuration"
        );
        Self::parse(&text).with_context(|| format!("{shown} is not as it should be"))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    fn check(&self) -> Result<()> {
        let rules = self.rules.len();
        ensure!(
            rules <= MAX_RULES,
            "there are {rules} services, and {MAX_RULES} at most: a pattern can stand for many"
        );
        if rules == 0 {
            bail!(
                "nothing is to be watched: add `-p PID`, `--command PATTERN`, or a [[service]] to --config FILE"
            );
        }
        self.check_tls()?;
        let pushes = self.pushes.iter().map(Push::name);
        let mut names: Vec<_> = pushes.chain(self.alerts.iter().map(Alert::name)).collect();
        let destinations = names.len();
        ensure!(
            destinations <= MAX_DESTINATIONS,
            "there are {destinations} destinations, and {MAX_DESTINATIONS} at most: a collector can hand on what it gets"
        );
        names.sort_unstable();
        if let Some(two) = names.windows(2).find(|two| two[0] == two[1]) {
            bail!("two destinations are the same: {}", two[0]);
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<()> {
        ensure!(
            self.tls_cert.is_some() == self.tls_key.is_some(),
            "tls_cert and tls_key belong together: one names the certificate, the other its key"
        );
        let is_encrypted = self.tls_cert.is_some();
        ensure!(
            !is_encrypted || self.listen.is_address(),
            "tls_cert is for an address: nobody can listen in at {}",
            self.listen
        );
        if let Some(ip) = self.listen.beyond_loopback().filter(|_| !is_encrypted) {
            bail!(
                "{ip} is not a loopback address, and the token would go over the network for all to read: name a certificate and its key by tls_cert and tls_key (--tls-cert, --tls-key), or listen at 127.0.0.1"
            );
        }
        Ok(())
    }

    /// The certificate of who answers, and its key; both or none.
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        self.tls_cert.as_deref().zip(self.tls_key.as_deref())
    }

    /// What page faults and the tracer's own time may take.
    pub fn budget(&self) -> Budget {
        self.budget.0
    }

    /// A window is closed this often.
    pub fn window(&self) -> Duration {
        self.window.0.max(Duration::from_secs(1))
    }

    /// New processes are looked for this often.
    pub fn scan(&self) -> Duration {
        self.scan.0.max(Duration::from_millis(100))
    }

    /// How long a closer look lasts.
    pub fn look(&self) -> Duration {
        self.look.0.max(Duration::from_secs(1))
    }

    /// What searching for who holds what leaks may take, where that is done for a service that
    /// is looked at so closely: what the budget gives in [`SEARCHED_FOR`] at most.
    pub fn searching(&self, depth: Depth) -> Option<Searching> {
        let rate = self.budget().allowance(1.0, 0.0);
        let at_most = SEARCHED_FOR.mul_f64(rate.min(1.0));
        let told = self.alerts.iter().map(|alert| alert.confidence);
        depth.holders.unwrap_or(self.holders).then(|| Searching {
            allowed: Allowance {
                per_gib: self.holders_budget.0,
                at_most,
                blocks: SEARCHED_BLOCKS,
            },
            confidence: told.reduce(f64::min).unwrap_or(CONFIDENCE),
            rate,
        })
    }

    /// How many bytes of windows are kept at most, and for how long.
    pub fn retention(&self) -> (u64, Duration) {
        (self.retention.size.0, self.retention.age.0)
    }

    /// What differs from `new` and cannot be changed while the service runs.
    pub fn fixed_changes(&self, new: &Self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        let mut note = |name, differs: bool| {
            if differs {
                changed.push(name);
            }
        };
        note("budget", self.budget != new.budget);
        note("listen", self.listen != new.listen);
        note("tls_cert", self.tls().is_some() != new.tls().is_some());
        note("state", self.state != new.state);
        changed
    }

    /// The settings, a line each, for `--check`.
    pub fn describe(&self) -> String {
        let (size, age) = self.retention();
        let time = |time| humantime::format_duration(time).to_string();
        let mut said = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            said,
            "budget {}, a window each {}, new processes looked for each {}, closer looks of {}",
            self.budget(),
            time(self.window()),
            time(self.scan()),
            time(self.look())
        );
        let _ = match self.holders {
            true => writeln!(
                said,
                "who holds what leaks is searched for in closer looks, within {} for each GiB",
                time(self.holders_budget.0)
            ),
            false => writeln!(
                said,
                "who holds what leaks is not searched for, but where a service says so"
            ),
        };
        let _ = writeln!(
            said,
            "kept in {}: {} and {} at most",
            self.state.display(),
            indicatif::HumanBytes(size),
            time(age)
        );
        let how = if self.tls().is_some() {
            " with TLS"
        } else {
            ""
        };
        let _ = writeln!(said, "listens at {}{how}", self.listen);
        for push in &self.pushes {
            let _ = writeln!(said, "pushes windows to {}", push.name());
        }
        for alert in &self.alerts {
            let _ = writeln!(
                said,
                "tells findings that are {:.0} % sure to {}",
                100.0 * alert.confidence,
                alert.place.url
            );
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        format!("{:#}", Config::parse(text).unwrap_err())
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = Config::parse(
            r#"
            budget = "5ms/s"
            window = "30s"
            listen = "unix:/run/u.sock"
            users = [1000]
            [retention]
            size = "10M"
            age = "2h"
            [[service]]
            name = "web"
            command = "*nginx*"
            [[service]]
            jvm = true
            "#,
        )
        .unwrap();
        assert_eq!(config.window(), Duration::from_secs(30));
        assert_eq!(config.retention(), (10 << 20, Duration::from_hours(2)));
        assert_eq!(config.rules.len(), 2);
        config.check().unwrap();
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = refused("window = \"60s\"\nwindw = \"1s\"\n");
        assert!(
            error.contains("line 2") && error.contains("windw"),
            "{error}"
        );
        let error = refused("\n\nwindow = \"soon\"\n");
        assert!(error.contains("line 3"), "{error}");
        let error = refused("listen = \"localhost:80\"\n");
        assert!(
            error.contains("line 1") && error.contains("127.0.0.1:PORT"),
            "{error}"
        );
        let error = refused("[[service]]\njvm = true\nmode = \"deep\"\n");
        assert!(
            error.contains("line 3") && error.contains("`growth`, `closer`"),
            "{error}"
        );
        let error = refused("[[service]]\njvm = true\nbudget = \"200%\"\n");
        assert!(
            error.contains("line 3") && error.contains("100%"),
            "{error}"
        );
        let error = refused("[[service]]\nname = \"x\"\n");
        assert!(
            error.contains("line 1") && error.contains("nothing"),
            "{error}"
        );
    }

    #[test]
    fn nobody_is_answered_over_the_network_without_tls() {
        let check = |text: &str| {
            let text = format!("{text}\n[[service]]\njvm = true\n");
            Config::parse(&text).unwrap().check()
        };
        let keys = "tls_cert = \"/c\"\ntls_key = \"/k\"";
        for (text, part) in [
            ("listen = \"0.0.0.0:80\"".to_owned(), "loopback"),
            ("listen = \"[::]:80\"".to_owned(), "loopback"),
            ("tls_cert = \"/c\"".to_owned(), "belong together"),
            (format!("listen = \"unix:/a\"\n{keys}"), "for an address"),
        ] {
            let error = check(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for listen in ["0.0.0.0:80", "127.0.0.1:80"] {
            check(&format!("listen = \"{listen}\"\n{keys}")).unwrap();
        }
    }

    /// A search is paid for by the host's budget, and begins with what is told.
    #[test]
    fn searches_are_within_the_budget() {
        let depth = Depth::default();
        let of = |text: &str, depth| Config::parse(text).unwrap().searching(depth);
        let usual = of("budget = \"20ms/s\"", depth).unwrap();
        assert_eq!(usual.allowed.at_most, Duration::from_secs(12));
        assert_eq!(usual.allowed.per_gib, Duration::from_secs(2));
        assert_eq!(usual.confidence, CONFIDENCE);
        let told = "[[alert]]\nurl = \"http://a\"\nconfidence = 0.6\n";
        let sooner = of(told, depth).unwrap();
        assert_eq!(sooner.confidence, 0.6);
        let with = |holders| Depth { holders, ..depth };
        assert_eq!(of("holders = false", depth), None);
        assert!(of("holders = false", with(Some(true))).is_some());
        assert_eq!(of("", with(Some(false))), None);
    }

    #[test]
    fn rules_are_bounded() {
        let mut config = Config::parse(&"[[service]]\ncommand = \"a*\"\n".repeat(10_000)).unwrap();
        config.check().unwrap();
        let one_more = config.rules[0].clone();
        config.rules.push(one_more);
        assert!(config.check().is_err());
        assert!(Config::default().check().is_err());
    }
}
