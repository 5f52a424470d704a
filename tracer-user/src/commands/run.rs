//! `unfreed run`: trace a program from its very first allocation.

use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::record::{End, Plan, announce, finish, listener, runtime, trace};
use crate::cli::args::RunArgs;
use crate::engine::{Options, preflight};
use crate::privilege::caller::Caller;
use crate::privilege::capability::{Duties, Phase, SIGNAL, with};
use crate::privilege::program::Rights;
use crate::report::output;
use crate::session::Session;
use crate::session::hold::Program;
use crate::session::launch::{Expected, Waiting, allocators_in, files_of, find_program};
use crate::session::preload::{self, Preload};
use crate::session::stop::Signals;
use crate::session::target::Target;
use crate::tables::Builder;
use crate::visible::clean;

/// The mean interval of samples, bytes, if nobody says another.
const DEFAULT_INTERVAL: u64 = 512 << 10;

/// Runs the verb: the program's own exit code, unless the gate fails.
///
/// # Errors
/// Says what failed and what mends it.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    let outputs = output::resolve(&args.output.outputs, args.output.format)?;
    output::check(&outputs)?;
    let mut options = Options::new(&args.trace)?;
    if args.sampler {
        options.leave_to_sampler();
    }
    options.check_lost = args.check_lost;
    // Somebody may ask for them while it goes on.
    options.holders = Some(args.trace.allowance());
    let program = Path::new(
        args.command
            .first()
            .context("no program to run was given")?,
    );
    let Some(path) = find_program(program) else {
        return Ok(cannot_run(
            program,
            &io::Error::from_raw_os_error(libc::ENOENT),
        ));
    };
    preflight::check()?;
    let caller = if args.as_root { None } else { Caller::find()? };
    let rights = caller.as_ref().map_or(Ok(Rights::own()), Rights::of)?;
    let start = Start {
        args,
        program,
        path: &path,
        caller: caller.as_ref(),
    };
    runtime()?.block_on(start.run(options, rights, outputs))
}

/// A program that is to be run.
struct Start<'a> {
    args: &'a RunArgs,
    /// As it was given.
    program: &'a Path,
    /// Where it is.
    path: &'a Path,
    /// Who it runs as, if not as we do.
    caller: Option<&'a Caller>,
}

impl Start<'_> {
    async fn run(
        &self,
        options: Options,
        rights: Rights,
        outputs: Vec<output::Output>,
    ) -> Result<ExitCode> {
        let args = self.args;
        let mut signals = Signals::catch()?;
        // The program's rights are none of the tracer's, so it is there
        // before these are given up.
        let expected = files_of(self.path);
        let preload = match args.sampler {
            false => None,
            true => {
                preload::check(&expected, &args.trace.allocators, &rights)?;
                let interval = args.trace.sample.unwrap_or(DEFAULT_INTERVAL);
                Some(Preload::new(interval)?)
            }
        };
        let waiting = Waiting::fork(&args.command, rights, preload)?;
        self.say_who();
        let duties = Duties {
            ends_program: true,
            asks_jvms: args.trace.jvm_attach,
            // Nobody knows what it will be.
            opens_events: true,
        };
        Phase::Tracing(duties).start()?;
        let mut session = self.load(options, waiting.pid, &expected)?;
        let mut holder = session.hold(waiting.pid, &expected)?;
        let child = match waiting.start() {
            Ok(child) => child,
            Err(error) => return Ok(cannot_run_as(self.program, &error, self.caller)),
        };
        let mut child = Program::new(child, holder.as_ref());
        let plan = Plan {
            trace: &args.trace,
            output: &args.output,
            outputs: Arc::new(outputs),
            screen: None,
            listener: listener(&args.trace),
            check_lost: args.check_lost,
        };
        let (end, publisher) = trace(&mut session, &mut holder, &plan, &mut signals).await?;
        if let End::Signal(number) = end {
            pass_on(&mut child, number, &mut signals).await?;
        }
        signals.leave_on_second(matches!(end, End::Signal(_)));
        drop(holder);
        if let Ok(Some(status)) = child.try_wait() {
            session.note_status(child.id(), status.into_raw());
        }
        let gate = finish(session, publisher, &plan)?;
        let status = child.wait()?;
        Ok(if gate == ExitCode::SUCCESS {
            code_of(status)
        } else {
            gate
        })
    }

    fn say_who(&self) {
        if let Some(caller) = self.caller.filter(|_| !self.args.trace.quiet) {
            eprintln!(
                "{} runs as {}, who called {}; --as-root runs it as root",
                clean(&self.program.to_string_lossy()),
                caller.describe(),
                caller.by
            );
        }
    }

    /// A session that traces the process which waits to call `exec`; `expected` are the
    /// files that it will map.
    fn load(&self, options: Options, pid: u32, expected: &[Expected]) -> Result<Session> {
        let trace = &self.args.trace;
        let mut builder = Builder::start()?;
        for file in expected {
            builder.request_file(&file.file, || file.path.clone());
        }
        let mut session = Session::load(options, builder)?;
        let target = Target::find(pid)?;
        let allocators = allocators_in(expected, &trace.allocators);
        let name = self.path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        session.attach_waiting(target, name, &allocators)?;
        session.start()?;
        announce(&mut session, trace);
        Ok(session)
    }
}

/// Says so, with a shell's exit codes.
fn cannot_run(program: &Path, error: &io::Error) -> ExitCode {
    eprintln!("unfreed: cannot run {}: {error}", program.display());
    ExitCode::from(if error.kind() == ErrorKind::NotFound {
        127
    } else {
        126
    })
}

/// The same, with what the user may not do.
fn cannot_run_as(program: &Path, error: &io::Error, caller: Option<&Caller>) -> ExitCode {
    match caller {
        Some(caller) if error.kind() == ErrorKind::PermissionDenied => {
            let user = caller.describe();
            let by = caller.by;
            cannot_run(
                program,
                &io::Error::other(format!(
                    "{error}: {user}, who called {by}, may not execute it, or may not enter its folder; --as-root runs it as root"
                )),
            )
        }
        _ => cannot_run(program, error),
    }
}

/// Ends the program as the signal asked. A terminal's Ctrl-C reaches it
/// without us, so it gets a moment first.
async fn pass_on(child: &mut Program, number: i32, signals: &mut Signals) -> Result<()> {
    for wait in 0.. {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        let due = if number == libc::SIGINT { 10 } else { 0 };
        if wait == due {
            let pid = i32::try_from(child.id())?;
            // It may be another user's by now.
            with(SIGNAL, || {
                // SAFETY: our own child, which was not waited for yet.
                unsafe { libc::kill(pid, number) }
            });
        }
        tokio::select! {
            again = signals.next() => std::process::exit(128 + again),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    Ok(())
}

/// The program's own exit code; 128 + the signal that ended it.
fn code_of(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}
