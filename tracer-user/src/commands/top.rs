//! `unfreed top`: what processes leak, or what a running `serve` knows, live on a terminal.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::record::{End, Plan, announce, attached, find_targets, runtime, signalled, trace};
use super::top_service;
use crate::cli::args::OutputArgs;
use crate::cli::top::TopArgs;
use crate::engine::{Options, preflight};
use crate::privilege::capability::{Duties, Phase};
use crate::process::short_name::short_name;
use crate::session::Session;
use crate::session::stop::Signals;
use crate::session::target::Target;
use crate::top::Model;
use crate::top::feed::Feed;
use crate::top::screen::{self, Screen};

/// Reports are made this often.
const EACH: Duration = Duration::from_secs(1);

/// Runs the verb.
///
/// # Errors
/// There is no terminal, or what `record` and `attach` say.
pub fn run(mut args: TopArgs) -> Result<ExitCode> {
    screen::check()?;
    if let Some(service) = args.service.take() {
        return top_service::run(&args, &service);
    }
    args.trace.interval.get_or_insert(EACH);
    show_processes(args)
}

/// Traces processes, and shows that until somebody quits.
fn show_processes(mut args: TopArgs) -> Result<ExitCode> {
    let mut pids = std::mem::take(&mut args.pids);
    pids.sort_unstable();
    pids.dedup();
    // What cannot be is said before anything is done.
    Options::new(&args.trace)?;
    preflight::check()?;
    // Before there are other threads.
    let duties = Duties {
        ends_program: false,
        asks_jvms: args.trace.jvm_attach,
        opens_events: true,
    };
    Phase::Tracing(duties).start()?;
    let (targets, untraced) = find_targets(pids)?;
    let source = named(&targets);
    runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let allowed = args.trace.allowance();
        // A key asks for them.
        let search = |options: &mut Options| options.holders = Some(allowed);
        let mut session = attached(targets, untraced, &mut args.trace, search)?;
        session.start()?;
        Phase::Tracing(Duties {
            opens_events: session.may_open_events(),
            ..duties
        })
        .start()?;
        announce(&mut session, &args.trace);
        // What is said from now on would be in the way, but for warnings.
        args.trace.quiet = true;
        let feed = Arc::new(Feed::default());
        let plan = Plan {
            trace: &args.trace,
            output: &OutputArgs::default(),
            outputs: Arc::default(),
            screen: Some(Arc::clone(&feed)),
            listener: None,
            check_lost: false,
        };
        let screen = Screen::open(Arc::clone(&feed), Model::new(&source), signals.ender())?;
        let end = show(session, &plan, &feed, &mut signals).await?;
        screen.close()?;
        Ok(code_of(end))
    })
}

/// Traces until somebody quits. When the processes or the time have ended before, the last
/// report stays on the screen.
async fn show(
    mut session: Session,
    plan: &Plan<'_>,
    feed: &Feed,
    signals: &mut Signals,
) -> Result<End> {
    let (end, publisher) = trace(&mut session, &mut None, plan, signals).await?;
    if end != End::Done {
        return Ok(end);
    }
    let is_over = session.is_over();
    let nothing_left = session.why_nothing_is_left();
    let snapshot = session.snapshot()?;
    drop(session);
    feed.put(publisher.last(snapshot)?);
    if let Some(reasons) = nothing_left {
        bail!("{reasons}");
    }
    feed.end(match is_over {
        true => "the processes have ended".to_owned(),
        false => "the time is over".to_owned(),
    });
    Ok(End::Signal(signals.next().await))
}

/// Success if somebody at the screen ended it, which counts as SIGINT.
pub fn code_of(end: End) -> ExitCode {
    match end {
        End::Done | End::Signal(libc::SIGINT) => ExitCode::SUCCESS,
        End::Signal(number) => signalled(number),
    }
}

/// What the screen calls what is traced.
fn named(targets: &[Target]) -> String {
    match targets {
        [target] => {
            let name = short_name(target.pid).unwrap_or_else(|| "process".to_owned());
            format!("{name} ({})", target.pid)
        }
        targets => format!("{} processes", targets.len()),
    }
}
