//! `unfreed doctor`: what works here, and the remedy for what does not.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::allocator;
use crate::cli::args::DoctorArgs;
use crate::privilege::capability::{Duties, Phase};
use crate::privilege::{describe, limits};
use crate::process::clock::monotonic_ns;
use crate::process::code::CodeSpace;
use crate::process::file::ModuleFiles;
use crate::report::model::Stacks;
use crate::report::names::clean;
use crate::session::preflight::checks;
use crate::session::target::Target;
use crate::session::{Options, Session};
use crate::tables::Builder;

/// Our own unwind table is large, and some machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Allocations by which stacks are tried.
const OWN_ALLOCATIONS: usize = 1000;

/// Runs the verb; fails if tracing would.
///
/// # Errors
/// Fails only if standard output cannot be written.
pub fn run(args: &DoctorArgs) -> Result<ExitCode> {
    println!(
        "unfreed {}, Linux {}",
        env!("CARGO_PKG_VERSION"),
        kernel_release()
    );
    let mut healthy = true;
    let mut show = |what: &str, result: Result<String, String>| match result {
        Ok(detail) => println!(
            "  ok       {what}{}{detail}",
            if detail.is_empty() { "" } else { ": " }
        ),
        Err(problem) => {
            healthy = false;
            println!("  problem  {what}: {problem}");
        }
    };
    for check in checks() {
        show(check.what, check.problem.map_or(Ok(String::new()), Err));
    }
    let held = Holding::find();
    show("privileges while attaching", held.attaching);
    show("kernel accepts the programs", held.load);
    show("privileges while tracing", held.tracing);
    show("privileges while reporting", held.reporting);
    show("privileges of threads that read files", held.parsing);
    if let Some(pid) = args.pid {
        Phase::Looking.start()?;
        for (what, result) in target(pid) {
            show(&what, result);
        }
    }
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// What a run holds, phase by phase, as the kernel tells it.
struct Holding {
    attaching: Result<String, String>,
    load: Result<String, String>,
    tracing: Result<String, String>,
    reporting: Result<String, String>,
    parsing: Result<String, String>,
}

impl Holding {
    /// Goes through a run's phases, on a thread of its own: what it gives up
    /// is gone.
    fn find() -> Self {
        // As a run does, while it still may.
        limits::raise();
        let phases = || Self {
            attaching: in_phase(Phase::Tracing(Duties {
                opens_events: true,
                ..Duties::default()
            })),
            load: load(),
            tracing: in_phase(Phase::Tracing(Duties::default())),
            reporting: in_phase(Phase::Reporting),
            parsing: in_phase(Phase::Parsing),
        };
        let failed = |_| {
            let problem = || Err("a thread of unfreed panicked".to_owned());
            Self {
                attaching: problem(),
                load: problem(),
                tracing: problem(),
                reporting: problem(),
                parsing: problem(),
            }
        };
        std::thread::scope(|scope| scope.spawn(phases).join()).unwrap_or_else(failed)
    }
}

fn in_phase(phase: Phase) -> Result<String, String> {
    let held = phase.enter().and_then(|()| describe::own());
    held.map_err(|error| format!("they cannot be given up: {error}"))
}

/// Loads everything once, on the smallest maps, and traces this process for a
/// moment: its stacks must be whole.
fn load() -> Result<String, String> {
    let text = |error| format!("{error:#}");
    let options = Options::smallest().map_err(text)?;
    let mut session = Session::load(options, Builder::start()).map_err(text)?;
    let stacks = own_stacks(&mut session).map_err(text)?;
    if stacks.whole < stacks.allocations || stacks.allocations == 0 {
        return Err(format!(
            "of {} stacks of unfreed itself only {} are whole: {:?}",
            stacks.allocations, stacks.whole, stacks.cut
        ));
    }
    Ok(format!(
        "attached by {}, a probe hit costs about {:.0} ns here, {} of {} stacks of unfreed itself are whole",
        session.road(),
        session.nanoseconds_per_hit(),
        stacks.whole,
        stacks.allocations
    ))
}

/// How the stacks of this process end.
fn own_stacks(session: &mut Session) -> Result<Stacks> {
    session.attach(Target::find(std::process::id())?)?;
    session.settle_code(PATIENCE)?;
    session.start()?;
    let allocating = std::thread::spawn(|| {
        for size in 1..=OWN_ALLOCATIONS {
            drop(std::hint::black_box(Vec::<u8>::with_capacity(size)));
        }
    });
    if allocating.join().is_err() {
        bail!("a thread of unfreed panicked");
    }
    session.detach()?;
    Ok(session.stacks())
}

/// What a target offers.
fn target(pid: u32) -> Vec<(String, Result<String, String>)> {
    let found = Target::find(pid);
    let mut results = vec![(
        format!("process {pid}"),
        found
            .map(|_| String::new())
            .map_err(|error| format!("{error:#}")),
    )];
    let code = match CodeSpace::attach(pid, monotonic_ns(), &mut ModuleFiles::new()) {
        Ok(code) => code,
        Err(error) => {
            results.push(("mappings".into(), Err(format!("{error:#}"))));
            return results;
        }
    };
    let (allocators, searched) = allocator::find(&code);
    for file in searched {
        if let Some(problem) = file.problem {
            results.push((
                clean(&file.path).into_owned(),
                Err(clean(&problem).into_owned()),
            ));
        }
    }
    if allocators.is_empty() {
        results.push((
            "allocator".into(),
            Err(format!("no mapped file is {}", allocator::LOOKED_FOR)),
        ));
    }
    for allocator in allocators {
        let functions: Vec<_> = allocator
            .functions
            .iter()
            .map(|function| {
                format!(
                    "\n             {}+{:#x} {}",
                    function.symbol, function.placement.displacement, function.placement
                )
            })
            .collect();
        results.push((
            format!("allocator {}", clean(&allocator.path)),
            Ok(functions.concat()),
        ));
    }
    results
}
