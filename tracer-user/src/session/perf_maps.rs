//! Perf maps that the JVMs of a run are asked for (`--jvm-attach`), at its
//! start and at its end: a further source of names for code that memory has
//! none for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::Session;
use crate::jvm::attach::{AttachError, Listener};
use crate::jvm::frames::JavaFrame;
use crate::jvm::perf_map::methods;
use crate::privilege::capability::Phase;
use crate::process::clock::monotonic_ns;

/// How long a JVM may take to write one: 14 ms for 6,000 methods.
const LIMIT: Duration = Duration::from_secs(10);

/// The answer of one JVM.
struct Answer {
    image: u64,
    /// From the question to the answer, nanoseconds of `CLOCK_MONOTONIC`.
    time: Range<u64>,
    methods: Result<Vec<(Range<u64>, JavaFrame)>, String>,
}

impl Answer {
    /// Asks, on a thread of its own: it keeps only what that needs.
    fn of(pid: u32, image: u64) -> Self {
        let asked = monotonic_ns();
        let text = Phase::Asking
            .enter()
            .map_err(AttachError::Credentials)
            .and_then(|()| Listener::find(pid))
            .and_then(|jvm| jvm.perf_map(LIMIT));
        Self {
            image,
            time: asked..monotonic_ns(),
            methods: text
                .map(|text| methods(&text))
                .map_err(|error| error.to_string()),
        }
    }
}

/// Why there are no perf maps, by image.
#[derive(Default)]
pub struct PerfMaps(BTreeMap<u64, String>);

impl PerfMaps {
    /// Why there is none of an image, if it was asked for one.
    pub fn problem(&self, image: u64) -> Option<String> {
        self.0.get(&image).cloned()
    }
}

impl Session {
    /// Asks all targets at once, if that was wished for, and waits for the
    /// answers.
    pub(super) fn take_perf_maps(&mut self) {
        if !self.options.jvm_attach {
            return;
        }
        let current = |pid| self.images.get(self.images.current(pid)?);
        let images = self.targets.iter().filter_map(|target| current(target.pid));
        let living: Vec<_> = images
            .filter(|image| image.ended.is_none())
            .map(|image| (image.pid, image.id))
            .collect();
        let ask = |(pid, image)| std::thread::spawn(move || Answer::of(pid, image));
        let asked: Vec<_> = living.into_iter().map(ask).collect();
        let answers: Vec<_> = asked
            .into_iter()
            .filter_map(|one| one.join().ok())
            .collect();
        // What was freed until the answers must be known first.
        self.java.codes.drain(&mut self.engine.object);
        for answer in answers {
            self.enter(answer);
        }
        self.java.names.look_again();
    }

    fn enter(&mut self, answer: Answer) {
        let methods = match answer.methods {
            Ok(methods) => methods,
            Err(problem) => {
                self.java.perf_maps.0.insert(answer.image, problem);
                return;
            }
        };
        for (place, frame) in methods {
            self.java
                .codes
                .add(answer.image, place, &answer.time, frame);
        }
    }
}
