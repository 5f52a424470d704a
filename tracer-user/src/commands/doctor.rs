//! `unfreed doctor`: what works here, and the remedy for what does not.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::attach::allocator::{self, Allocator, AllocatorFunction, Declared, describe_stripped};
use crate::attach::copied;
use crate::attach::inspect::{Finding, inspect, inspect_allocator};
use crate::attach::library;
use crate::attach::plan::{Returns, Unseen, plan};
use crate::attach::probes::Scope;
use crate::attach::rest::{Rest, left_alone, rest};
use crate::attach::sampler::{self, Found};
use crate::cli::args::DoctorArgs;
use crate::engine::Options;
use crate::engine::preflight::checks;
use crate::jvm::libjvm::{LibJvm, NAME};
use crate::model::Stacks;
use crate::privilege::capability::{Duties, Phase};
use crate::privilege::{describe, limits};
use crate::process::clock::monotonic_ns;
use crate::process::code::CodeSpace;
use crate::process::copied::Copied;
use crate::process::file::ModuleFiles;
use crate::report::units;
use crate::session::Session;
use crate::session::returns::walker_in;
use crate::session::seccomp::has_filter;
use crate::session::shadow_stack;
use crate::session::target::Target;
use crate::symbolize::demangle;
use crate::tables::Builder;
use crate::visible::clean;

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
    let held = Holding::find();
    show("privileges while attaching", held.attaching);
    let (accepted, machine) = match held.load {
        Ok((detail, machine)) => (Ok(detail), machine),
        Err(problem) => (Err(problem), Machine::default()),
    };
    show("kernel accepts the programs", accepted);
    if machine.filter_kills {
        let detail = "they would kill; results are taken at return instructions";
        show(
            "return probes in processes with a seccomp filter",
            Ok(detail.into()),
        );
    }
    show("privileges while tracing", held.tracing);
    show("privileges while reporting", held.reporting);
    show("privileges of threads that read files", held.parsing);
    if let Some(pid) = args.pid {
        Phase::Looking.start()?;
        for (what, result) in target(pid, &args.allocators, machine) {
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

/// What a run would find out of this kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Machine {
    /// Whether return probes kill processes with a filter.
    filter_kills: bool,
    /// Whether mappings are seen in the kernel, and no function of libc is probed for
    /// them.
    sees_mappings: bool,
}

/// What a run holds, phase by phase, as the kernel tells it.
struct Holding {
    attaching: Result<String, String>,
    load: Result<(String, Machine), String>,
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
            let problem = || "a thread of unfreed panicked".to_owned();
            Self {
                attaching: Err(problem()),
                load: Err(problem()),
                tracing: Err(problem()),
                reporting: Err(problem()),
                parsing: Err(problem()),
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
/// moment: its stacks must be whole. And whether return probes kill processes
/// with a filter.
fn load() -> Result<(String, Machine), String> {
    let text = |error| format!("{error:#}");
    let options = Options::smallest().map_err(text)?;
    let builder = Builder::start().map_err(text)?;
    let mut session = Session::load(options, builder).map_err(text)?;
    // While perf events can be opened yet.
    let machine = Machine {
        filter_kills: session.filter_kills(),
        sees_mappings: session.sees_mappings(),
    };
    let stacks = own_stacks(&mut session).map_err(text)?;
    if stacks.whole < stacks.allocations || stacks.allocations == 0 {
        return Err(format!(
            "of {} stacks of unfreed itself only {} are whole: {:?}",
            stacks.allocations, stacks.whole, stacks.cut
        ));
    }
    let detail = format!(
        "attached by {}, mappings are seen {}, a probe hit costs about {:.0} ns here, {} of {} stacks of unfreed itself are whole",
        session.road(),
        session.system_calls(),
        session.nanoseconds_per_hit(),
        stacks.whole,
        stacks.allocations
    );
    Ok((detail, machine))
}

/// How the stacks of this process end.
fn own_stacks(session: &mut Session) -> Result<Stacks> {
    session.attach_all(vec![Target::find(std::process::id())?])?;
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

/// Why results would be taken at return instructions.
fn why_instructions(code: &CodeSpace, filter_kills: bool) -> Option<String> {
    let because = |why: String| format!("at return instructions: {why}");
    let pid = code.process().pid();
    let deadly = if filter_kills && has_filter(pid) {
        Some("seccomp filter")
    } else {
        shadow_stack::return_probe_kills(pid).then_some("shadow stack")
    };
    if let Some(what) = deadly {
        return Some(because(format!(
            "return probes would kill it, by its {what}"
        )));
    }
    let walker = walker_in(code)?;
    Some(because(format!(
        "it may walk its own stacks, by {} ({})",
        walker.what, walker.sign
    )))
}

/// What a target offers.
fn target(pid: u32, declared: &[Declared], machine: Machine) -> Vec<Line> {
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
    let samplers = samplers(&code);
    let has_sampler = samplers.iter().any(|(_, result)| result.is_ok());
    results.extend(samplers);
    let (allocators, searched) = allocator::find(&code, declared);
    if has_sampler {
        let detail = "not probed: its sampler tells what it allocates; --no-samplers probes them";
        results.push(("allocators".into(), Ok(detail.into())));
        return results;
    }
    for file in searched {
        if let Some(name) = file.other.and_then(|other| other.stripped) {
            let (function, reason) = describe_stripped(name);
            results.push((
                clean(&file.path).into_owned(),
                Err(format!("{function} is not probed: {reason}")),
            ));
        }
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
            Err(format!(
                "no mapped file is {}; `record` follows page faults in its place",
                allocator::LOOKED_FOR
            )),
        ));
    }
    let why = why_instructions(&code, machine.filter_kills);
    let returns = match why {
        Some(_) => Returns::Instructions,
        None => Returns::Replaced,
    };
    let detail = why.unwrap_or_else(|| "by return probes".to_owned());
    results.push(("results of calls".into(), Ok(clean(&detail).into_owned())));
    results.extend(hooked_vm(pid, &code));
    for allocator in &allocators {
        let probed = match machine.sees_mappings {
            true => &allocator.without_mappings(),
            false => allocator,
        };
        let (hooked, rest) = hooked(pid, probed, returns);
        results.extend(hooked);
        let functions: Vec<_> = rest.functions.iter().map(placed).collect();
        let endless = plan(&probed.functions, returns).unseen;
        let endless: Vec<_> = endless.iter().map(not_probed).collect();
        let functions = functions.concat() + &endless.concat();
        let heap = match rest.has_heap {
            true => Ok(functions),
            false => Err(format!("its heap would not be traced{functions}")),
        };
        results.push((format!("allocator {}", clean(&allocator.path)), heap));
    }
    results.extend(pools(&code, declared, &allocators));
    results.extend(copies(pid, code, declared));
    results
}

/// What `--pools` would probe beside these allocators.
fn pools(code: &CodeSpace, declared: &[Declared], allocators: &[Allocator]) -> Vec<Line> {
    let declared = [declared, &[Declared::pools()]].concat();
    let (found, _) = allocator::find(code, &declared);
    let line = |found: &Allocator| {
        let same_file = allocators.iter().find(|it| it.path == found.path);
        let is_new = |function: &&AllocatorFunction| {
            let mut known = same_file.into_iter().flat_map(|it| &it.functions);
            known.all(|known| known.start != function.start)
        };
        let new = found.functions.iter().filter(is_new);
        let functions: Vec<_> = new.map(placed).collect();
        let name = format!("pools of {}", clean(&found.path));
        let probed = || format!("with --pools, not without{}", functions.concat());
        (!functions.is_empty()).then(|| (name, Ok(probed())))
    };
    found.iter().filter_map(line).collect()
}

/// Allocators whose code the process has copied to where no probe can be.
fn copies(pid: u32, mut code: CodeSpace, declared: &[Declared]) -> Vec<Line> {
    // A process that is gone has none.
    let _ = code.look(monotonic_ns(), &mut ModuleFiles::new());
    let line = |copied: &Copied| {
        let is_program = code.is_program_file(copied.range.file);
        let (left_alone, _) = copied::allocator_in(pid, copied, is_program, declared)?;
        let name = format!("allocator {}", clean(&left_alone.module));
        Some((name, Err(clean(&left_alone.sentence()).into_owned())))
    };
    code.copied().filter_map(line).collect()
}

/// The samplers of a process, and what is wrong with those that are of no use.
fn samplers(code: &CodeSpace) -> Vec<Line> {
    let found = sampler::find(code, |file, mapping| {
        sampler::in_file(file, &mapping.display_name())
    });
    let line = |(_, found)| match found {
        Found::None => None,
        Found::Sampler(sampler) => {
            let detail = format!(
                "it takes samples itself: {}, {} of allocations, {} of frees{}",
                sampler.describe(),
                units::counted(sampler.allocs.len() as u64, "place"),
                sampler.frees.len(),
                match sampler.spots().any(|spot| spot.counter != 0) {
                    true => ", switched on by semaphores",
                    false => "",
                }
            );
            Some(("sampler".to_owned(), Ok(clean(&detail).into_owned())))
        }
        Found::Unusable(why) => {
            let problem = format!("it is not used: {why}");
            Some(("sampler".to_owned(), Err(clean(&problem).into_owned())))
        }
    };
    found.into_iter().filter_map(line).collect()
}

/// Where a function would be probed, on a line of its own.
fn placed(function: &AllocatorFunction) -> String {
    let ends = match function.probed {
        probed if probed.frees() => String::new(),
        _ => format!(", ends at {}", function.ends_described()),
    };
    format!(
        "\n             {}+{:#x} {}{ends}",
        demangle(&function.symbol),
        function.placement.first.displacement,
        function.placement
    )
}

/// One that would not be probed, and why.
fn not_probed(unseen: &Unseen) -> String {
    format!(
        "\n             {} not probed: {}",
        demangle(&unseen.symbol),
        unseen.describe()
    )
}

/// Functions of an allocator that would be left alone, and the others.
fn hooked(pid: u32, allocator: &Allocator, returns: Returns) -> (Vec<Line>, Rest) {
    let functions = &allocator.functions;
    let findings = inspect_allocator(Scope::Process(pid), allocator, returns);
    let starts = left_alone(functions, &findings, &plan(functions, returns).unseen);
    let rest = rest(functions, &starts);
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
    let stretches = library::functions_of_vm(&library);
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
