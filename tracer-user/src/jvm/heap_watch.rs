//! Class histograms of one JVM over a run, taken on a thread of their own.
//!
//! A histogram is due every so often, but is only taken when the JVM has just
//! collected, or is overdue: then there is little garbage in it (see
//! [`growth`](super::growth)). How many there are does not depend on the
//! run's length, and they take at most a fiftieth of its time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::attach::{AttachError, Jvm};
use super::counters::Counters;
use super::growth::verdict;
use super::histogram::Histogram;
use crate::process::clock::monotonic_ns;
use crate::report::model::{ClassGrowth, GrowthVerdict, HeapSample, JavaHeap};

/// How long one answer may take. A full collection of a large heap, and the
/// walk through it, take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the JVM is asked whether it has collected, when a histogram is
/// due.
const ASK: Duration = Duration::from_millis(100);
/// Histograms that are kept. When there are as many, every second one goes,
/// and the time between them doubles.
const MAX_SAMPLES: usize = 32;
/// Histograms in a run whose length is known.
const PER_RUN: u32 = 16;
/// The first distance in a run whose length is not known.
const FIRST_PERIOD: Duration = Duration::from_secs(1);
/// Time between histograms, at least, as a multiple of what the last took.
const REST: f64 = 50.0;
/// Classes in a report.
const MAX_CLASSES: usize = 1_000;

/// Watches one JVM's heap.
#[derive(Debug)]
pub struct HeapWatch {
    pid: u32,
    live_only: bool,
    shared: Arc<Mutex<Samples>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Samples {
    taken: Vec<(HeapSample, u64, Histogram)>,
    problem: Option<String>,
}

impl HeapWatch {
    /// Takes the first histogram and goes on in the background. That there is
    /// none is no error: the report says why.
    pub fn start(pid: u32, live_only: bool, duration: Option<Duration>) -> Self {
        let shared = Arc::new(Mutex::new(Samples::default()));
        let mut watch = Self {
            pid,
            live_only,
            shared: Arc::clone(&shared),
            stop: None,
            thread: None,
        };
        let asked = Jvm::find(pid).and_then(|jvm| take(&jvm, live_only).map(|first| (jvm, first)));
        match asked {
            Err(error) => lock(&shared).problem = Some(error.to_string()),
            Ok((jvm, first)) => {
                let cost = first.0.answered_in;
                lock(&shared).taken.push(first);
                let (stop, stopped) = channel();
                watch.stop = Some(stop);
                let sampler = Sampler {
                    jvm,
                    live_only,
                    period: duration.map_or(FIRST_PERIOD, |time| time / PER_RUN),
                    cost,
                    shared,
                };
                watch.thread = Some(std::thread::spawn(move || sampler.run(&stopped)));
            }
        }
        watch
    }

    /// Why there are no histograms, or no more.
    pub fn problem(&self) -> Option<String> {
        lock(&self.shared).problem.clone()
    }

    /// Asks for the last histogram, without waiting for it.
    pub fn stop(&mut self) {
        self.stop = None;
    }

    /// What was found; after [`HeapWatch::stop`], up to the last histogram,
    /// for which it waits. Times are given by `since_start`.
    pub fn report(&mut self, since_start: impl Fn(u64) -> f64) -> JavaHeap {
        if self.stop.is_none()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            lock(&self.shared).problem = Some("the thread that asks the JVM failed".to_owned());
        }
        let samples = lock(&self.shared);
        let (classes, omitted) = classes(&samples);
        let times = samples.taken.iter().map(|(sample, time, _)| HeapSample {
            at: since_start(*time),
            ..*sample
        });
        JavaHeap {
            pid: self.pid,
            live_only: self.live_only,
            samples: times.collect(),
            classes,
            omitted,
            problem: samples.problem.clone(),
        }
    }
}

/// The thread's part.
struct Sampler {
    jvm: Jvm,
    live_only: bool,
    period: Duration,
    /// What the last histogram took, seconds.
    cost: f64,
    shared: Arc<Mutex<Samples>>,
}

impl Sampler {
    fn run(mut self, stopped: &Receiver<()>) {
        let goes_on = |time| matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout));
        let result = loop {
            let rest = Duration::try_from_secs_f64(self.cost * REST).unwrap_or(LIMIT);
            let period = self.period.max(rest);
            if !goes_on(period) {
                break self.sample(false);
            }
            let sampled = match self.await_collection(period, goes_on) {
                Wait::Collected => self.sample(true),
                Wait::Overdue => self.sample(false),
                Wait::Stopped => break self.sample(false),
                Wait::Failed(error) => Err(error),
            };
            if sampled.is_err() {
                break sampled;
            }
        };
        if let Err(error) = result {
            lock(&self.shared).problem = Some(error.to_string());
        }
    }

    /// Waits until the JVM collects, but not longer than `limit`. With
    /// `--live` every histogram collects by itself.
    fn await_collection(&self, limit: Duration, goes_on: impl Fn(Duration) -> bool) -> Wait {
        if self.live_only {
            return Wait::Collected;
        }
        let overdue = Instant::now() + limit;
        let mut before = None;
        while Instant::now() < overdue {
            let count = match counters(&self.jvm) {
                Ok(counters) => counters.collections(),
                Err(error) => return Wait::Failed(error),
            };
            if before.is_some() && before != count {
                return Wait::Collected;
            }
            before = count;
            if !goes_on(ASK.min(limit)) {
                return Wait::Stopped;
            }
        }
        Wait::Overdue
    }

    fn sample(&mut self, after_collection: bool) -> Result<(), AttachError> {
        let mut taken = take(&self.jvm, self.live_only)?;
        taken.0.after_collection |= after_collection;
        self.cost = taken.0.answered_in;
        let mut samples = lock(&self.shared);
        samples.taken.push(taken);
        if samples.taken.len() >= MAX_SAMPLES {
            thin(&mut samples.taken);
            self.period *= 2;
        }
        Ok(())
    }
}

/// How a wait for a collection ended.
enum Wait {
    Collected,
    Overdue,
    Stopped,
    Failed(AttachError),
}

/// Leaves every second one out, but neither the first nor the last.
fn thin<T>(taken: &mut Vec<T>) {
    let last = taken.len().saturating_sub(1);
    let mut index = 0;
    taken.retain(|_| {
        let keep = index % 2 == 0 || index == last;
        index += 1;
        keep
    });
}

fn counters(jvm: &Jvm) -> Result<Counters, AttachError> {
    Ok(Counters::parse(&jvm.command("PerfCounter.print", LIMIT)?))
}

/// One histogram, when it was complete, and what it cost.
fn take(jvm: &Jvm, live_only: bool) -> Result<(HeapSample, u64, Histogram), AttachError> {
    let command = if live_only {
        "GC.class_histogram"
    } else {
        "GC.class_histogram -all"
    };
    let before = counters(jvm)?.stopped();
    let begin = Instant::now();
    let text = jvm.command(command, LIMIT)?;
    let answered_in = begin.elapsed().as_secs_f64();
    let time = monotonic_ns();
    let after = counters(jvm)?;
    let histogram = Histogram::parse(&text).ok_or(AttachError::Malformed)?;
    let pause = after
        .stopped()
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before).as_secs_f64());
    let sample = HeapSample {
        at: 0.0,
        answered_in,
        pause,
        after_collection: live_only,
        collections: after.collections(),
        instances: histogram.total.instances,
        bytes: histogram.total.bytes,
    };
    Ok((sample, time, histogram))
}

/// The classes of a report, and how many are left out.
fn classes(samples: &Samples) -> (Vec<ClassGrowth>, u64) {
    let indexed = samples.taken.iter().enumerate();
    let floors: Vec<usize> = indexed
        .filter(|(_, (sample, ..))| sample.after_collection)
        .map(|(index, _)| index)
        .collect();
    let names: std::collections::HashSet<&str> = samples
        .taken
        .iter()
        .flat_map(|(_, _, histogram)| histogram.classes.keys().map(String::as_str))
        .collect();
    let mut classes: Vec<_> = names
        .into_iter()
        .map(|name| class(name, samples, &floors))
        .filter(|class| {
            class.verdict == GrowthVerdict::Grows
                || class.instances.first() != class.instances.last()
        })
        .collect();
    classes.sort_by_cached_key(|class| (class.verdict, -gained(&class.bytes), class.class.clone()));
    let omitted = classes.len().saturating_sub(MAX_CLASSES) as u64;
    classes.truncate(MAX_CLASSES);
    (classes, omitted)
}

fn class(name: &str, samples: &Samples, floors: &[usize]) -> ClassGrowth {
    let objects = |(_, _, histogram): &(HeapSample, u64, Histogram)| {
        histogram.classes.get(name).copied().unwrap_or_default()
    };
    let instances: Vec<u64> = samples
        .taken
        .iter()
        .map(|taken| objects(taken).instances)
        .collect();
    ClassGrowth {
        class: name.to_owned(),
        verdict: verdict(&instances, floors),
        instances,
        bytes: samples
            .taken
            .iter()
            .map(|taken| objects(taken).bytes)
            .collect(),
    }
}

fn gained(series: &[u64]) -> i128 {
    let end = |value: Option<&u64>| i128::from(value.copied().unwrap_or(0));
    end(series.last()) - end(series.first())
}

fn lock(shared: &Mutex<Samples>) -> MutexGuard<'_, Samples> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::histogram::Objects;

    fn samples(counts: &[&[(&str, u64)]]) -> Samples {
        let taken = counts.iter().zip(0..).map(|(classes, time)| {
            let objects = |count| Objects {
                instances: count,
                bytes: 16 * count,
            };
            let histogram = Histogram {
                classes: classes
                    .iter()
                    .map(|(name, count)| ((*name).to_owned(), objects(*count)))
                    .collect(),
                total: Objects::default(),
            };
            let sample = HeapSample {
                after_collection: true,
                ..HeapSample::default()
            };
            (sample, time, histogram)
        });
        Samples {
            taken: taken.collect(),
            problem: None,
        }
    }

    #[test]
    fn what_grows_comes_first_and_what_stays_is_left_out() {
        let rows: Vec<Vec<(&str, u64)>> = (0..8)
            .map(|i| {
                vec![
                    ("grown", 7 + i),
                    ("same", 9),
                    ("late", 100 * u64::from(i == 7)),
                ]
            })
            .collect();
        let rows: Vec<&[(&str, u64)]> = rows.iter().map(Vec::as_slice).collect();
        let (classes, omitted) = classes(&samples(&rows));
        assert_eq!(omitted, 0);
        let found: Vec<_> = classes
            .iter()
            .map(|class| (class.class.as_str(), class.verdict))
            .collect();
        assert_eq!(
            found,
            [
                ("grown", GrowthVerdict::Grows),
                ("late", GrowthVerdict::Steady)
            ]
        );
        assert_eq!(
            classes[0].bytes,
            (7..15).map(|i| 16 * i).collect::<Vec<_>>()
        );
    }

    #[test]
    fn thinning_keeps_both_ends() {
        let mut even: Vec<u32> = (0..32).collect();
        thin(&mut even);
        assert_eq!((even.len(), even[0], even[1], even[16]), (17, 0, 2, 31));
        let mut one = vec![1];
        thin(&mut one);
        assert_eq!(one, [1]);
    }

    #[test]
    fn a_process_that_is_no_jvm_is_a_reason() {
        let mut watch = HeapWatch::start(std::process::id(), false, None);
        let heap = watch.report(|_| 0.0);
        assert!(heap.samples.is_empty());
        assert!(heap.problem.unwrap_or_default().contains("no HotSpot JVM"));
    }
}
