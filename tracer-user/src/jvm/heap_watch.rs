//! Class histograms of one JVM over a run, taken on a thread of their own; and
//! what it says of its native memory, at both ends.
//!
//! Every so often a histogram is taken, and another as soon as the JVM has collected:
//! what the class counts fall by was garbage (see
//! [`growth`](super::growth)). How many there are does not depend on the
//! run's length, and they take at most a twenty-fifth of its time: the JVM
//! stops its threads to count, for 20 to 70 ms a million objects (17, measured).

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::account;
use super::attach::{AttachError, Listener};
use super::counters::Counters;
use super::heap_samples::{Samples, Taken};
use super::histogram::Histogram;
use crate::model::{HeapSample, HeapSampling, JavaHeap, JavaMemory, JvmAccount};
use crate::privilege::capability::Phase;
use crate::process::clock::monotonic_ns;

/// How long one answer may take. A full collection of a large heap, and the
/// walk through it, take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// How often is looked whether the JVM has collected, when a histogram is due.
const LOOK: Duration = Duration::from_millis(20);
/// Pairs of histograms in a run whose length is known.
const PER_RUN: u32 = 12;
/// The first distance in a run whose length is not known.
const FIRST_PERIOD: Duration = Duration::from_secs(1);
/// Time between pairs, at least, as a multiple of what one histogram took.
const REST: f64 = 50.0;
/// Names another multiple, for tests that would wait for minutes.
const REST_VARIABLE: &str = "UNFREED_HEAP_REST";

/// Watches one JVM's heap.
#[derive(Debug)]
pub struct HeapWatch {
    pid: u32,
    live_only: bool,
    shared: Arc<Mutex<Samples>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HeapWatch {
    /// Begins to take histograms, on a thread of its own; `duration` is how
    /// long the run takes, if that is known. That there are none is no error:
    /// the report says why.
    pub fn start(pid: u32, live_only: bool, duration: Option<Duration>) -> Self {
        let shared = Arc::new(Mutex::new(Samples::default()));
        let (stop, stopped) = channel();
        let period = duration.map_or(FIRST_PERIOD, |time| time / PER_RUN);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let sampler = Phase::Asking
                .enter()
                .map_err(AttachError::Credentials)
                .and_then(|()| Sampler::begin(pid, live_only, period, &for_thread));
            if let Err(error) = sampler.and_then(|sampler| sampler.run(&stopped)) {
                lock(&for_thread).problem = Some(error.to_string());
            }
        });
        Self {
            pid,
            live_only,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Whether the first histogram was taken, or there is none.
    pub fn has_begun(&self) -> bool {
        let samples = lock(&self.shared);
        !samples.accounts.is_empty() || samples.problem.is_some()
    }

    /// The process id in our namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Why there are no histograms, or no more.
    pub fn problem(&self) -> Option<String> {
        lock(&self.shared).problem.clone()
    }

    /// Asks for the last histogram, without waiting for it.
    pub fn stop(&mut self) {
        self.stop = None;
    }

    /// Waits for the last histogram, if it was asked for.
    pub fn settle(&mut self) {
        if self.stop.is_none()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            lock(&self.shared).problem = Some("the thread that asks the JVM failed".to_owned());
        }
    }

    /// The heap's growth until now. Times are given by `since_start`.
    pub fn heap(&self, since_start: impl Fn(u64) -> f64) -> JavaHeap {
        let samples = lock(&self.shared);
        let (classes, omitted) = samples.classes();
        let times = samples.taken.iter().map(|taken| HeapSample {
            at: since_start(taken.time),
            ..taken.sample
        });
        JavaHeap {
            pid: self.pid,
            live_only: self.live_only,
            samples: times.collect(),
            classes,
            omitted,
            sampled: HeapSampling::default(),
            problem: samples.problem.clone(),
            flight_recording: None,
        }
    }

    /// What the JVM says of its native memory; none if it did not answer.
    /// Times are given by `since_start`.
    pub fn memory(&self, since_start: impl Fn(u64) -> f64) -> Option<JavaMemory> {
        let samples = lock(&self.shared);
        let mut accounts = samples.accounts.iter().map(|(time, account)| JvmAccount {
            at: since_start(*time),
            ..account.clone()
        });
        Some(JavaMemory {
            pid: self.pid,
            first: accounts.next()?,
            last: accounts.next_back(),
        })
    }
}

/// The thread's part.
struct Sampler<'a> {
    jvm: Listener,
    live_only: bool,
    /// Whether there is no garbage in any histogram.
    exact: bool,
    period: Duration,
    /// See [`REST`].
    rest: f64,
    /// What the last histogram took, seconds.
    cost: f64,
    shared: &'a Mutex<Samples>,
}

impl<'a> Sampler<'a> {
    /// Takes the first histogram.
    fn begin(
        pid: u32,
        live_only: bool,
        period: Duration,
        shared: &'a Mutex<Samples>,
    ) -> Result<Self, AttachError> {
        let jvm = Listener::find(pid)?;
        let counters = jvm.counters().unwrap_or_default();
        let mut sampler = Self {
            jvm,
            live_only,
            exact: live_only || counters.sees_only_reachable(),
            period,
            rest: rest(),
            cost: 0.0,
            shared,
        };
        sampler.sample(sampler.exact)?;
        sampler.account()?;
        Ok(sampler)
    }

    /// Takes one after the other until it is `stopped`, and then the last.
    fn run(mut self, stopped: &Receiver<()>) -> Result<(), AttachError> {
        let goes_on = |time| matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout));
        loop {
            let rest = Duration::try_from_secs_f64(self.cost * self.rest).unwrap_or(LIMIT);
            let period = self.period.max(rest);
            if !goes_on(period) || !self.pair(period, goes_on)? {
                self.account()?;
                return self.sample(self.exact);
            }
        }
    }

    fn account(&self) -> Result<(), AttachError> {
        let account = account::take(&self.jvm, LIMIT)?;
        lock(self.shared).accounts.push((monotonic_ns(), account));
        Ok(())
    }

    /// One histogram, and one after the next collection if that comes within
    /// `limit`; whether to go on. If there is no garbage, one is enough.
    fn pair(
        &mut self,
        limit: Duration,
        goes_on: impl Fn(Duration) -> bool,
    ) -> Result<bool, AttachError> {
        self.sample(self.exact)?;
        if self.exact {
            return Ok(true);
        }
        match self.await_collection(limit, goes_on) {
            Wait::Collected => self.sample(true).map(|()| true),
            Wait::Overdue => Ok(true),
            Wait::Stopped => Ok(false),
        }
    }

    /// Waits until the JVM collects, but not longer than `limit`.
    fn await_collection(&self, limit: Duration, goes_on: impl Fn(Duration) -> bool) -> Wait {
        let overdue = Instant::now() + limit;
        let mut before = None;
        while Instant::now() < overdue {
            let count = collections(&self.jvm);
            if before.is_some() && before != count {
                return Wait::Collected;
            }
            before = count;
            if !goes_on(LOOK.min(limit)) {
                return Wait::Stopped;
            }
        }
        Wait::Overdue
    }

    fn sample(&mut self, after_collection: bool) -> Result<(), AttachError> {
        let mut taken = take(&self.jvm, self.live_only)?;
        taken.sample.after_collection = after_collection;
        self.cost = taken.sample.answered_in;
        if lock(self.shared).add(taken) {
            self.period *= 2;
        }
        Ok(())
    }
}

fn rest() -> f64 {
    let asked = std::env::var(REST_VARIABLE).ok();
    let asked = asked.and_then(|text| text.parse().ok());
    asked.unwrap_or(REST)
}

/// How a wait for a collection ended.
enum Wait {
    Collected,
    Overdue,
    Stopped,
}

fn collections(jvm: &Listener) -> Option<u64> {
    jvm.counters()?.collections()
}

/// One histogram.
fn take(jvm: &Listener, live_only: bool) -> Result<Taken, AttachError> {
    let command = if live_only {
        "GC.class_histogram"
    } else {
        "GC.class_histogram -all"
    };
    let stopped = || jvm.counters()?.stopped();
    let before = stopped();
    let begin = Instant::now();
    let text = jvm.command(command, LIMIT)?;
    let answered_in = begin.elapsed().as_secs_f64();
    let time = monotonic_ns();
    let after = stopped();
    let histogram = Histogram::parse(&text).ok_or(AttachError::Malformed)?;
    let pause = after
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before).as_secs_f64());
    let counters = jvm.counters();
    let counted = |of: fn(&Counters) -> Option<u64>| counters.as_ref().and_then(of);
    let sample = HeapSample {
        at: 0.0,
        answered_in,
        pause,
        after_collection: false,
        collections: counted(Counters::collections),
        old_collections: counted(Counters::old_collections),
        instances: histogram.total.instances,
        bytes: histogram.total.bytes,
    };
    Ok(Taken {
        sample,
        time,
        histogram,
    })
}

fn lock(shared: &Mutex<Samples>) -> MutexGuard<'_, Samples> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_jvm_is_a_reason() {
        let mut watch = HeapWatch::start(std::process::id(), false, None);
        watch.stop();
        watch.settle();
        assert!(watch.memory(|_| 0.0).is_none());
        let heap = watch.heap(|_| 0.0);
        assert!(heap.samples.is_empty());
        assert!(heap.problem.unwrap_or_default().contains("no HotSpot JVM"));
    }
}
