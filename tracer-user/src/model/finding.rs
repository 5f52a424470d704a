//! What a run found, in a few sentences: a part of the report's schema.

use serde::{Deserialize, Serialize};

/// What the numbers of a site say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Blocks come all the time, and a part of them outlives by far what its blocks
    /// usually live.
    Leak,
    /// More is live all the time, and it is too early to tell more.
    Growing,
    /// It has grown and does no more: a cache or a pool that is full.
    Plateau,
    /// All of it dates from the first part of the run.
    Startup,
    /// It goes up and down: what is gathered is freed at once.
    Batch,
    /// Blocks are freed and replaced, and none lives long.
    Churn,
}

impl Verdict {
    /// All of them.
    const ALL: [Self; 6] = [
        Self::Leak,
        Self::Growing,
        Self::Plateau,
        Self::Startup,
        Self::Batch,
        Self::Churn,
    ];

    /// The one with a name of exports.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    /// Its name in exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::Growing => "growing",
            Self::Plateau => "plateau",
            Self::Startup => "startup",
            Self::Batch => "batch",
            Self::Churn => "churn",
        }
    }

    /// Whether it is a reason to worry.
    pub const fn grows(self) -> bool {
        matches!(self, Self::Leak | Self::Growing)
    }
}

/// A verdict and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The probability that it is right, by the model that `verdict::judge` states: 0 to 1.
    pub confidence: f64,
}

/// A moment of a site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    /// Bytes that are live.
    pub live_bytes: u64,
    /// Blocks that are live.
    pub live_count: u64,
    /// Blocks ever allocated.
    pub allocated_count: u64,
}

/// The same at a time of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Seconds from the run's start.
    pub at: f64,
    /// See [`Level`].
    pub live_bytes: u64,
    /// See [`Level`].
    pub live_count: u64,
    /// See [`Level`].
    pub allocated_count: u64,
}

impl CurvePoint {
    /// The sums of two curves, each of which ends with the last moments of one run.
    pub fn sum(one: &[Self], other: &[Self]) -> Vec<Self> {
        let (long, short) = match one.len() >= other.len() {
            true => (one, other),
            false => (other, one),
        };
        let mut sum = long.to_vec();
        let from = long.len() - short.len();
        for (sum, point) in sum[from..].iter_mut().zip(short) {
            sum.live_bytes += point.live_bytes;
            sum.live_count += point.live_count;
            sum.allocated_count += point.allocated_count;
        }
        sum
    }

    /// A level at a time.
    pub const fn new(at: f64, level: Level) -> Self {
        Self {
            at,
            live_bytes: level.live_bytes,
            live_count: level.live_count,
            allocated_count: level.allocated_count,
        }
    }
}

/// A bound of the memory that a process can have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// What bounds it: `cgroup` and its path, or `machine`.
    pub name: String,
    /// The bound, bytes.
    pub bytes: u64,
    /// How much of it was free at the end, bytes: what the kernel can reclaim is.
    pub left: u64,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// See [`Verdict::Leak`].
    Leak,
    /// See [`Verdict::Growing`].
    Growing,
    /// Children that are not traced grow.
    Children,
    /// A process grows by memory of which no call path was seen.
    OutsideAllocations,
    /// A process opens descriptors that it does not close.
    Descriptors,
    /// Files in memory that a process has open grow: tmpfs, memfd.
    FilesInMemory,
    /// A large part of a growth came in so few blocks that nobody can say whether others will.
    Undecided,
    /// An allocator keeps what was freed.
    Retention,
    /// Most of what is in memory is older than the run.
    BeforeTheRun,
    /// See [`Verdict::Plateau`].
    Plateau,
    /// See [`Verdict::Startup`].
    Startup,
    /// See [`Verdict::Batch`] and [`Verdict::Churn`].
    Churn,
}

impl FindingKind {
    /// Its name in capitals, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Leak => "LEAK",
            Self::Growing => "GROWING",
            Self::Children => "CHILDREN GROW",
            Self::OutsideAllocations => "OUTSIDE ALLOCATIONS",
            Self::Descriptors => "DESCRIPTORS",
            Self::FilesInMemory => "FILES IN MEMORY",
            Self::Undecided => "TOO EARLY TO SAY",
            Self::Retention => "RETENTION",
            Self::BeforeTheRun => "BEFORE THE RUN",
            Self::Plateau => "PLATEAU",
            Self::Startup => "START-UP",
            Self::Churn => "CHURN",
        }
    }

    /// Whether it says of call paths that they do no harm.
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::Startup | Self::Plateau | Self::Churn)
    }

    /// Whether it says that memory is wanting.
    pub const fn is_growth(self) -> bool {
        matches!(
            self,
            Self::Leak
                | Self::Growing
                | Self::Children
                | Self::OutsideAllocations
                | Self::Descriptors
                | Self::FilesInMemory
        )
    }
}

/// When a limit is reached if growth goes on as it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Which limit; see [`MemoryLimit::name`].
    pub limit: String,
    /// The limit, bytes.
    pub limit_bytes: u64,
    /// What is left of it, bytes.
    pub left_bytes: u64,
    /// Seconds until then.
    pub seconds: f64,
}

/// One answer of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// One sentence.
    pub title: String,
    /// The function that it blames; empty if it is about none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// Index into [`super::Report::processes`].
    pub process: usize,
    /// Names of the call path that it is about, root first: the part that all its sites
    /// have in common. Empty if it is about none.
    pub path: Vec<String>,
    /// The sites that it is about, by [`super::Site::id`], those that grow most first; at
    /// most 100.
    pub sites: Vec<u64>,
    /// How many there are.
    pub site_count: u64,
    /// Present if it has as many blocks at each look as a finding before it: the first of
    /// that one's `sites`. What allocates both is probably one thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_step_with: Option<u64>,
    /// By how many bytes a second what is live grew while it did.
    pub bytes_per_second: f64,
    /// Bytes that are live.
    pub live_bytes: u64,
    /// Blocks that are live.
    pub live_count: u64,
    /// The probability that `kind` is right: 0 to 1.
    pub confidence: f64,
    /// Since when, seconds from the run's start.
    pub since: f64,
    /// What it will come to.
    pub forecast: Option<Forecast>,
    /// What speaks for it, a sentence each.
    pub evidence: Vec<String>,
    /// Who holds what it is about (`--holders`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<super::Holders>,
    /// What to do next: a sentence with a command, or nothing.
    pub advice: String,
}

impl Finding {
    /// What it is known by, from one report to the next: where it is in the call tree, or, if it is
    /// nowhere there, what it is about.
    pub fn place(&self) -> String {
        match self.path.is_empty() {
            true => self.kind.text().to_owned(),
            false => self.path.join("\n"),
        }
    }

    /// What it is, and how sure that is: what nobody knows yet is as sure as not.
    pub fn kind_and_confidence(&self) -> String {
        let kind = self.kind.text();
        match self.kind {
            FindingKind::Undecided => kind.to_owned(),
            _ => format!("{kind} ({:.0} % sure)", 100.0 * self.confidence),
        }
    }

    /// One without numbers yet, of a process.
    pub const fn new(kind: FindingKind, process: usize, confidence: f64) -> Self {
        Self {
            kind,
            title: String::new(),
            function: String::new(),
            process,
            path: Vec::new(),
            sites: Vec::new(),
            site_count: 0,
            in_step_with: None,
            bytes_per_second: 0.0,
            live_bytes: 0,
            live_count: 0,
            confidence,
            since: 0.0,
            forecast: None,
            evidence: Vec::new(),
            holders: None,
            advice: String::new(),
        }
    }
}
