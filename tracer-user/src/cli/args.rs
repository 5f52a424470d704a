//! The command line. Arguments only validate what was typed.

use std::path::PathBuf;
use std::time::Duration;

use super::ask::HoldersArgs;
pub use super::diff::DiffArgs;
use super::holders::{CHECK_LOST, HOLDERS, JFR};
pub use super::output::OutputArgs;
use super::serve::ServeArgs;
use super::server::AttachArgs;
use super::top::TopArgs;
use crate::attach::allocator::Declared;
use crate::budget::Budget;
use crate::holders::Allowance;
use crate::kernel::program::Programs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tracer_ebpf::sample::{MAX_INTERVAL, MIN_INTERVAL};

const EXAMPLES: &str = "\
Examples:
  What does process 1234 leak? Trace for a minute, print the table:
      sudo unfreed record -p 1234 --duration 60s
  The same as a flamegraph and as a pprof profile:
      sudo unfreed record -p 1234 --duration 60s -o leak.svg -o leak.pb.gz
  Every minute a table of what is new, until Ctrl-C; then one of the whole run:
      sudo unfreed record -p 1234 --interval 1m
  The same live, on the whole terminal:
      sudo unfreed top -p 1234
  Where does it grow, at no cost to the calls of its allocator?
      sudo unfreed record -p 1234 --growth --duration 10m
  A server with its workers, one row for each call path of a program:
      sudo unfreed record -p 1234 --follow --duration 60s
  Run a program from its first allocation, and fail CI when it leaks:
      sudo unfreed run --fail-above 1M -- ./service --self-test
  Run a service with a sampler in it, for a few nanoseconds a call:
      sudo unfreed run --sampler --interval 1m -- ./service
  Why is that said of finding 1?
      unfreed report monday.json --explain 1
  Compare two recordings:
      unfreed diff monday.json friday.json -o growth.svg";

/// Show which call paths of a live process allocate native memory that is
/// never freed.
#[derive(Debug, Parser)]
#[command(name = "unfreed", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace live processes by pid
    Record(RecordArgs),
    /// Start a program and trace it from its first allocation
    ///
    /// Under sudo, doas or pkexec the program runs as the user who called it,
    /// with that user's groups, limits, HOME, USER, LOGNAME, MAIL and SHELL, and
    /// without capabilities. What sudo took out of the environment is gone: `sudo
    /// -E` (or --preserve-env=NAME) hands on more; PATH is sudo's. Reports belong
    /// to root.
    Run(RunArgs),
    /// Watch services of this host for as long as it runs, and show what grows
    ///
    /// Page faults of all processes that are services are followed, within a budget: which
    /// paths touch memory that stays, and for each service what of it grows. No probes are
    /// placed. Windows are kept in a folder, and told over HTTP.
    Serve(ServeArgs),
    /// Show live what processes leak, or what a running `serve` knows of a service
    ///
    /// Findings first, then the call paths, of which each has its stack and evidence. The screen
    /// is brought up to date each second (--interval); `?` tells what the keys do.
    Top(TopArgs),
    /// Ask a `record` or `run` that goes on who holds what holds most, now
    ///
    /// The run searches the memory of its processes as it does at its end with --holders, and goes on. It
    /// prints the table until now, each call path with who holds it; with --site N one of them with all its chains.
    Holders(HoldersArgs),
    /// Print or export what a running `serve` knows of a service
    ///
    /// Without -o: what grows, as a table. It is of all that page faults told since the service's
    /// processes are watched, at the end of the last window; with --look, of the allocations that
    /// the last closer look has followed.
    Attach(AttachArgs),
    /// Render a saved JSON report again, offline
    Report(ReportArgs),
    /// Compare two reports (JSON or pprof)
    Diff(DiffArgs),
    /// Check the kernel, privileges and a target, with a remedy for each problem
    Doctor(DoctorArgs),
    /// List the USDT probes that a live process offers
    Probes(ProbesArgs),
    /// Print a shell completion script
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages into a folder
    #[command(hide = true)]
    Manual {
        /// An existing folder
        folder: PathBuf,
    },
    /// Build the unwind tables of files and print what they hold
    #[command(hide = true)]
    Tables(TablesArgs),
}

/// `unfreed record`
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Process to trace (repeatable)
    #[arg(short, long = "pid", value_name = "PID", required = true,
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pids: Vec<u32>,
    /// Which classes of a JVM's heap to watch.
    #[command(flatten)]
    pub java: JavaArgs,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// What to write.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What to ask a JVM.
#[derive(Debug, Args)]
#[command(next_help_heading = "Java")]
pub struct JavaArgs {
    /// Show which classes grow in a JVM's heap (stops it for each count: some 60 ms a million objects)
    #[arg(long, conflicts_with = "growth")]
    pub java_heap: bool,
    /// Count after a full collection each time: no garbage, but a longer stop
    #[arg(long, requires = "java_heap")]
    pub live: bool,
    /// With --holders, have the JVM's flight recorder tell who holds what cannot be found from
    /// outside (stops the JVM while it searches its heap)
    #[arg(long, long_help = JFR, requires_all = ["java_heap", "holders"])]
    pub jfr: bool,
}

/// `unfreed run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// What to write.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Preload a sampler of ours into the program, which tells of chosen allocations: no
    /// probes in allocators, a few ns a call
    #[arg(long, long_help = SAMPLER, conflicts_with_all = ["growth", "overhead", "no_samplers", "pools",
          "modules", "only", "programs"])]
    pub sampler: bool,
    /// When the program ends, look what nothing points to any more; exit with status 3 if
    /// there is anything
    #[arg(long, long_help = CHECK_LOST, conflicts_with_all = ["growth", "overhead", "sample", "sampler",
          "programs"])]
    pub check_lost: bool,
    /// Run the program as root, not as the user who called sudo, doas or pkexec
    #[arg(long)]
    pub as_root: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub command: Vec<std::ffi::OsString>,
}

/// How to trace.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tracing")]
pub struct TraceArgs {
    /// Stop after this long [default: until Ctrl-C or the target's end]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Print a table of what is new, and rewrite the outputs, this often
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Report only blocks that have been live at least this long [default: all; rows say how
    /// many are younger than their blocks usually get]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub older_than: Option<Duration>,
    /// Of a JVM, report only blocks that survived this many garbage collections
    #[arg(long, value_name = "COUNT", conflicts_with = "no_jvm_probes",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub survived: Option<u32>,
    /// Leave a JVM's own probes alone: no collections, classes and threads
    #[arg(long)]
    pub no_jvm_probes: bool,
    /// Probe allocators also of processes that take samples of their allocations themselves
    /// and tell of them (otel_memory, ddheap)
    #[arg(long)]
    pub no_samplers: bool,
    /// Ask a JVM (17 and later) for a perf map, for names of code that has none
    #[arg(long)]
    pub jvm_attach: bool,
    /// Trace only allocations of at least this many bytes
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "0")]
    pub min_size: u64,
    /// The memory that the processes may have together, for the forecast; by default the limit
    /// of their control group, or the machine's memory
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub limit: Option<u64>,
    /// Trace only allocations that the code of this file asks for: a path, a file's name, or
    /// its beginning (libfoo of libfoo.so.1); repeatable
    #[arg(long = "module", value_name = "FILE", long_help = MODULE,
          conflicts_with_all = ["growth", "programs"])]
    pub modules: Vec<String>,
    /// Trace only allocations that this function asks for: its symbol or its name in the
    /// source, * for any letters; repeatable
    #[arg(long, value_name = "FUNCTION", long_help = ONLY,
          conflicts_with_all = ["growth", "programs"])]
    pub only: Vec<String>,
    /// Trace a sample: an allocation of SIZE bytes with probability 1 - 1/e, others in
    /// proportion; numbers are estimates with their standard errors
    #[arg(long, value_name = "SIZE", value_parser = interval, long_help = SAMPLE)]
    pub sample: Option<u64>,
    /// Keep what tracing costs below this part of the targets' processor time (1%), or below a
    /// time a second (5ms/s): follow all allocations, a sample, or short bursts
    #[arg(long, value_name = "BUDGET", long_help = OVERHEAD, conflicts_with_all = ["sample",
          "older_than", "survived", "pools", "programs"])]
    pub overhead: Option<Budget>,
    /// Place no probes in allocators: show where the resident set grows, by the paths that
    /// touch new memory
    #[arg(long, long_help = GROWTH, conflicts_with_all = ["min_size", "sample", "older_than",
          "survived", "returns", "allocators", "pools", "programs"])]
    pub growth: bool,
    /// Whether that is since there is nothing to probe; nobody asks for it
    #[arg(skip)]
    pub growth_instead: bool,
    /// At the end, while the processes live, search their memory for who holds live blocks
    #[arg(long, long_help = HOLDERS, conflicts_with_all = ["growth", "programs"])]
    pub holders: bool,
    /// With --holders or --check-lost, the processor time for each GiB that is searched; no less
    /// than 4 s in all
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    pub holders_budget: Duration,
    /// Trace children too, living ones and those to come; processes of one program
    /// share their call paths
    #[arg(long)]
    pub follow: bool,
    /// With --follow, tell the call paths of each process apart (each is kept to the end)
    #[arg(long, requires = "follow")]
    pub per_process: bool,
    /// How the results of calls are taken
    #[arg(long, value_enum, default_value_t, value_name = "HOW",
          long_help = RETURNS)]
    pub returns: ReturnsChoice,
    /// An allocator with other names: the file, its function that allocates, with the number
    /// of the argument that is the size, and the one that frees its first argument (repeatable)
    #[arg(long = "allocator", value_name = "FILE:ALLOC[=size@N],FREE")]
    pub allocators: Vec<Declared>,
    /// Count the objects that pools hand out: APR's pools, all that Erlang allocates
    #[arg(long, long_help = POOLS)]
    pub pools: bool,
    /// Tell call paths apart by thread, and name the threads
    #[arg(long)]
    pub threads: bool,
    /// Live blocks to hold in the kernel
    #[arg(long, value_name = "COUNT", value_parser = count, default_value = "1M")]
    pub max_live: u64,
    /// Call paths to hold in the kernel; those without anything live make room for others
    #[arg(long, value_name = "COUNT", value_parser = count, default_value = "16k")]
    pub max_sites: u64,
    /// Rows of unwind tables to hold in the kernel, 8 bytes each
    #[arg(long, value_name = "COUNT", value_parser = count, default_value = "1M")]
    pub max_rows: u64,
    /// Attach other programs than those that count, for benchmarks
    #[arg(long, hide = true, value_enum, default_value_t)]
    pub programs: Programs,
    /// Look at processes this often, for tests
    #[arg(long, hide = true, value_name = "TIME", value_parser = duration, default_value = "100ms")]
    pub poll: Duration,
    /// Print what is probed and where; twice: the kernel side's log too
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No progress, no table; only what -o asks for
    #[arg(short, long)]
    pub quiet: bool,
}

impl TraceArgs {
    /// What a search for holders may take.
    pub const fn allowance(&self) -> Allowance {
        Allowance::per_gib(self.holders_budget)
    }

    /// Whether page faults may be followed where there is nothing to probe: nothing was asked
    /// for that they do not tell.
    pub fn may_follow_pages(&self) -> bool {
        let asks = self.min_size > 0
            || self.older_than.is_some()
            || self.survived.is_some()
            || self.sample.is_some()
            || !self.modules.is_empty()
            || !self.only.is_empty()
            || !self.allocators.is_empty()
            || self.holders
            || self.pools
            || self.returns != ReturnsChoice::default();
        !self.growth && !asks && self.programs == Programs::Counting
    }
}

const MODULE: &str = "\
Trace only allocations that the code of this file asks for, for who knows where to look: the call of \
malloc, or of operator new, lies in it. All others are left out before anything is looked up, and \
cost little more than the kernel's trap; their frees, too.

FILE is a path, a file's name (libfoo.so.1), or the name without what follows .so (libfoo), and may be \
the program. It may be opened later. Several, and --only, are united: what any of them means is \
traced. A library that calls malloc for its caller, as strdup of the C library does, is the one that \
asks. With realloc, who calls it decides, whoever asked for the old block.

Mappings and threads' stacks are counted if that code makes them; a JVM's handles and threads are \
left out. Samplers in processes are left alone.

    sudo unfreed record -p 1234 --module libplugin.so --duration 60s";

const ONLY: &str = "\
Trace only allocations that this function asks for: the call of malloc, or of operator new, lies in \
it. See --module, of which all holds here, too.

FUNCTION is a symbol (_ZN5cache6insertEi), a name as it is shown, with or without its arguments \
(cache::insert), or a pattern with * for any letters ('cache::*'). All functions of that name count, in \
any file, with the parts that the compiler split off. A function that was inlined into another has \
no call of its own: name the one that it is in. A function that ends in a jump to malloc is not \
seen; its caller is.

    sudo unfreed record -p 1234 --only 'cache::insert' --only parse_header";

const SAMPLE: &str = "\
Trace a sample of the allocations, chosen by chance: one in so many bytes on average (512k is a \
good start; 1k to 64M).

An allocation of S bytes is chosen with probability 1 - e^(-S/SIZE), so large ones hardly escape \
and small ones seldom count; each chosen one stands for as many as it was chosen from. All numbers \
of blocks are then estimates without bias, with standard errors. Mappings, threads and JVMs' \
handles are few, and are counted one by one.

Calls that are not chosen cost little more than the probes' traps, which remain: the kernel stops \
at each call of the allocator. Most of what a trace costs beyond them is saved.";

const SAMPLER: &str = "\
Preload a sampler of ours into the program: a small library that chooses one allocation in so many \
bytes (--sample SIZE, or 512k), as --sample does, but within the program. Only chosen ones, and \
their frees, stop it; all others cost a nanosecond or two.

The library is a file in memory without a name, which the program gets as an open descriptor and \
by LD_PRELOAD, before what is there already: nothing is left behind. If the tracer ends, or is \
killed, the library falls idle. Children get it too, unless they close descriptors that they do \
not know; with --follow they are traced, those without it by probes.

    sudo unfreed run --sampler --sample 256k -o leak.svg -- ./service --port 80

It needs a program with a loader and glibc 2.34 or later, or musl, whose allocator is a library: \
one that is linked statically, has an allocator of its own in it, or gets other rights than its \
caller's is refused before it is started, and can be traced without --sampler.";
const OVERHEAD: &str = "\
Keep what tracing costs below this part of the targets' processor time (1%), or below a time a \
second (5ms/s). What it costs is measured all the time: the targets' calls that are stopped, times \
what one costs on this machine, and the tracer's own time; never less than 5ms/s is allowed, which \
the tracer itself needs.

As much is followed as the budget allows: all allocations; or a sample (as with --sample 512k); or \
all of them in short bursts at random moments, with no probes in between. What that says of the \
whole run are estimates with their standard errors. For a path whose blocks outlive their burst \
the report says how many of them were followed, how many were seen to be freed later, and how many \
would have been if they lived as long as the run. Mappings, threads and JVMs' handles are counted \
one by one. If not even bursts are within the budget, probing ends, and the report says so.

Page faults are followed beside allocations, for a quarter of the budget at most: a second table \
shows which paths touched new memory first. While nothing grows bursts have a quarter of the \
budget, and all of it within two seconds when something does. With --growth page faults alone are \
followed, as far as the budget allows.

Example: unfreed record -p 1234 --overhead 1% --duration 10m";

const GROWTH: &str = "\
Place no probes in allocators: show where the resident set grows, by the paths that touch new \
memory.

The kernel tells of page faults; each page is charged to the path that touched it first, for as \
long as it is in memory. So a process that does not grow pays nothing, and one that does pays per \
4 KiB, not per allocation. The answer is where memory was first touched, not who keeps it: if an \
allocator hands out again what was freed, the path that made it grow is shown. Trace that service \
without --growth to see who never frees.

With --overhead 1% what that costs is bounded: where there are too many page faults they are not \
followed for most of the time, and what came into memory meanwhile is told as such.";

const POOLS: &str = "\
Count the objects that pools hand out, at the paths that ask for them: those of APR's pools \
(Apache httpd, Subversion), which are freed when their pool is cleared or destroyed, and all that \
Erlang's runtime allocates (its erts_alcu functions).

Without it, a path by which a pool takes more memory stands for all objects in it, and the report \
says so. A program asks a pool far more often than the pool asks for memory, and each time costs as \
much as a malloc under trace; so this is not done unasked. GLib's slices, and what native code gets \
of Erlang's runtime (enif_alloc, driver_alloc), are counted anyway.";

const RETURNS: &str = "\
How the results of calls are taken.

A return probe puts the kernel's trampoline in place of a call's return address while the call \
runs. It costs little, but who walks the stack inside the process meanwhile (a heap profiler, a \
sanitizer) meets it, and loses the callers. Probes at the functions' return instructions change \
nothing of the process, but the kernel single-steps them: a malloc and free pair costs some \
0.6 us more on bare metal, and 10 us more in some virtual machines. The report says what a hit \
costs on this machine.";

/// How the results of calls are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ReturnsChoice {
    /// At return instructions if a target is known to walk its own stacks, or would be killed by a
    /// return probe (seccomp, on some kernels); otherwise by return probes
    #[default]
    Auto,
    /// By return probes, which replace return addresses
    Replace,
    /// At return instructions
    Instructions,
}

/// `unfreed report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A report written with -o FILE.json
    pub file: PathBuf,
    /// What to write.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `unfreed doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also look at this process
    #[arg(short, long, value_name = "PID",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pid: Option<u32>,
    /// As for record
    #[arg(
        long = "allocator",
        value_name = "FILE:ALLOC[=size@N],FREE",
        requires = "pid"
    )]
    pub allocators: Vec<Declared>,
}

/// `unfreed probes`
#[derive(Debug, Args)]
pub struct ProbesArgs {
    /// The process
    #[arg(short, long, value_name = "PID",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pid: u32,
    /// Only probes of this provider
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Only probes whose names contain all of these
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Print everything that is known of each site, as JSON
    #[arg(long)]
    pub json: bool,
}

/// `unfreed tables`
#[derive(Debug, Args)]
pub struct TablesArgs {
    /// Programs and libraries
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Rows of unwind tables that the kernel could hold
    #[arg(long, value_name = "COUNT", value_parser = count, default_value = "1M")]
    pub max_rows: u64,
}

/// Report formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Flamegraph (.svg)
    Svg,
    /// Folded stacks, root first, live bytes as the value (.folded)
    Folded,
    /// pprof profile (.pb.gz)
    Pprof,
    /// The complete report (.json)
    Json,
    /// The table (.txt)
    Text,
    /// Flamegraph of growing Java classes and where they are allocated, with --java-heap (.java.svg)
    JavaSvg,
    /// The same as folded stacks, growth in bytes as the value (.java.folded)
    JavaFolded,
    /// Who holds what, roots on top, with --holders (.holders.svg)
    HoldersSvg,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 5m or 1h30m"))
}

/// A number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|error| format!("{error}; write 4096, 64k or 10M"))
}

fn interval(text: &str) -> Result<u64, String> {
    let value = size(text)?;
    if (MIN_INTERVAL..=MAX_INTERVAL).contains(&value) {
        Ok(value)
    } else {
        Err("must be from 1k to 64M".into())
    }
}

fn count(text: &str) -> Result<u64, String> {
    let value = size(text)?;
    if (16..=1 << 28).contains(&value) {
        Ok(value)
    } else {
        Err("must be from 16 to 256M".into())
    }
}
