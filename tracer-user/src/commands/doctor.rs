//! `unfreed doctor`: what works here, and the remedy for what does not.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::allocator::{self, Allocator, AllocatorFunction};
use crate::attach::inspect::{Finding, inspect};
use crate::attach::probes::{self, Scope};
use crate::attach::rest::{Rest, rest};
use crate::cli::args::DoctorArgs;
use crate::jvm::libjvm::{LibJvm, NAME};
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

/// What was looked at, and what was found there, or what is wrong.
type Line = (String, Result<String, String>);

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
    show("kernel accepts the programs", load());
    if let Some(pid) = args.pid {
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
fn target(pid: u32) -> Vec<Line> {
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
    results.extend(hooked_vm(pid, &code));
    for allocator in &allocators {
        let (hooked, rest) = hooked(pid, allocator);
        results.extend(hooked);
        let functions: Vec<_> = rest.functions.iter().map(placed).collect();
        let functions = functions.concat();
        let heap = match rest.has_heap {
            true => Ok(functions),
            false => Err(format!("its heap would not be traced{functions}")),
        };
        results.push((format!("allocator {}", clean(&allocator.path)), heap));
    }
    results
}

/// Where a function would be probed, on a line of its own.
fn placed(function: &AllocatorFunction) -> String {
    format!(
        "\n             {}+{:#x} {}",
        function.symbol, function.placement.displacement, function.placement
    )
}

/// Functions of an allocator that would be left alone, and the others.
fn hooked(pid: u32, allocator: &Allocator) -> (Vec<Line>, Rest) {
    let stretches: Vec<_> = allocator.functions.iter().map(|it| it.stretch()).collect();
    let findings = inspect(Scope::Process(pid), &allocator.file, &stretches);
    let starts: Vec<_> = findings.iter().map(|it| it.stretch.start).collect();
    let rest = rest(&allocator.functions, &starts);
    let problems = findings
        .iter()
        .map(|finding| problem(finding, &allocator.path, &rest.unseen));
    (problems.collect(), rest)
}

/// Functions of a Java VM that would be left alone.
fn hooked_vm(pid: u32, code: &CodeSpace) -> Vec<Line> {
    let Ok(Some(library)) = LibJvm::find(code) else {
        return Vec::new();
    };
    let stretches = probes::functions_of_vm(&library);
    let findings = inspect(Scope::Process(pid), library.file(), &stretches);
    let unseen = "what probes of these functions tell is not seen";
    findings
        .iter()
        .map(|finding| problem(finding, NAME, unseen))
        .collect()
}

fn problem(finding: &Finding, path: &str, unseen: &str) -> Line {
    let left_alone = finding.describe(path, None, unseen);
    (
        format!("{} is as in its file", finding.stretch.name),
        Err(clean(&left_alone.sentence()).into_owned()),
    )
}
