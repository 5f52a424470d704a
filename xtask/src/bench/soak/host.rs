//! What is watched: services at work, and visitors that come and go.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::Course;
use crate::bench::service::{Kind, Launch};
use crate::bench::target::Target;

/// The services, and how each is called by `serve`'s rules.
const SERVICES: [(Kind, &str); 4] = [
    (Kind::Redis, "redis"),
    (Kind::Reconnecting, "postgres"),
    (Kind::Java, "java"),
    (Kind::Forked, "nginx"),
];

/// A load goes on in pieces of this length, between which it is asked whether it is to end.
const PIECE: Duration = Duration::from_secs(5);

/// All that works.
pub(super) struct Host {
    is_over: Arc<AtomicBool>,
    alive: Arc<AtomicUsize>,
    visitors: JoinHandle<Result<Visits>>,
    services: Vec<JoinHandle<Work>>,
}

/// Visitors that came.
#[derive(Debug, Default)]
struct Visits {
    came: u64,
    pages: u64,
}

/// What a service did.
#[derive(Debug)]
pub(super) struct Work {
    /// The service.
    pub(super) name: &'static str,
    /// Operations that were done.
    pub(super) operations: u64,
    /// Why pieces of its load failed, those that did.
    pub(super) failures: Vec<String>,
    pid: String,
}

#[cfg(test)]
impl Work {
    /// For tests of who judges it.
    pub(super) const fn new(name: &'static str, operations: u64) -> Self {
        Self {
            name,
            operations,
            failures: Vec::new(),
            pid: String::new(),
        }
    }
}

/// What became of all.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Visitors that came, did all and ended as they should.
    pub(super) visitors: u64,
    /// Pages that they touched.
    pub(super) pages: u64,
    /// What services did.
    pub(super) work: Vec<Work>,
    /// The processes of the services, which have ended.
    pub(super) pids: Vec<String>,
}

impl Host {
    /// Starts all of it.
    ///
    /// # Errors
    /// Fails if something does not start.
    pub(super) fn start(visitor: &Path, course: Course) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let alive = Arc::new(AtomicUsize::new(0));
        let mut services = Vec::new();
        for (kind, name) in SERVICES {
            let mut service = kind.start(&Launch::Plain)?;
            service.load(service.warm_up())?;
            let is_over = Arc::clone(&is_over);
            services.push(std::thread::spawn(move || {
                let (mut operations, mut failures) = (0, Vec::new());
                while !is_over.load(Ordering::Acquire) {
                    // What was measured until then is not lost by that.
                    match service.load(PIECE) {
                        Ok(load) => operations += load.operations,
                        Err(error) => failures.push(format!("{error:#}")),
                    }
                }
                Work {
                    name,
                    operations,
                    failures,
                    pid: service.pid(),
                }
            }));
        }
        let (program, over, there) = (visitor.to_owned(), Arc::clone(&is_over), Arc::clone(&alive));
        let visitors = std::thread::spawn(move || visit(&program, course, &over, &there));
        Ok(Self {
            is_over,
            alive,
            visitors,
            services,
        })
    }

    /// Visitors that are there.
    pub(super) fn alive(&self) -> usize {
        self.alive.load(Ordering::Acquire)
    }

    /// Ends all of it.
    ///
    /// # Errors
    /// Fails if a visitor was harmed.
    pub(super) fn end(self) -> Result<Outcome> {
        self.is_over.store(true, Ordering::Release);
        let panicked = |_| anyhow!("a thread panicked");
        let visits = self.visitors.join().map_err(panicked)??;
        let mut work = Vec::new();
        for service in self.services {
            work.push(service.join().map_err(panicked)?);
        }
        Ok(Outcome {
            visitors: visits.came,
            pages: visits.pages,
            pids: work.iter().map(|it| it.pid.clone()).collect(),
            work,
        })
    }
}

/// Lets visitors come and go until it is over.
fn visit(
    program: &Path,
    course: Course,
    is_over: &AtomicBool,
    alive: &AtomicUsize,
) -> Result<Visits> {
    let mut there: VecDeque<Target> = VecDeque::new();
    let mut visits = Visits::default();
    let step = course.stay / u32::try_from(course.visitors)?;
    while !is_over.load(Ordering::Acquire) {
        there.push_back(Target::start(Command::new(program))?);
        if there.len() > course.visitors
            && let Some(oldest) = there.pop_front()
        {
            leave(oldest, &mut visits)?;
        }
        alive.store(there.len(), Ordering::Release);
        sleep(step);
    }
    for visitor in there {
        leave(visitor, &mut visits)?;
    }
    alive.store(0, Ordering::Release);
    Ok(visits)
}

/// It says what it did, and ends as it should.
fn leave(visitor: Target, visits: &mut Visits) -> Result<()> {
    visits.pages += visitor.end_saying("pages ")?.parse::<u64>()?;
    visits.came += 1;
    Ok(())
}
