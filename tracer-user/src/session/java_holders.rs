//! Who holds the objects of the classes that grow, and which objects hold native blocks.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Session;
use crate::holders::ByJava;
use crate::jvm::flight::Flight;
use crate::jvm::holders::{MAX_CLASSES, search_classes, search_natives};
use crate::model::{FlightRecording, Holders, JavaHeap, Link};
use crate::process::clock::thread_cpu_ns;
use crate::report::java_growth::suspects;

/// Said where a JVM was not asked.
const NAMED_FLAG: &str = "--jfr has the JVM's own flight recorder tell it, where it has one";

impl Session {
    /// Has the heaps' growing classes searched for holders from now on, when the run ends.
    pub fn search_java_holders(&mut self) {
        self.java.searches_holders = true;
    }

    /// Has JVMs asked who holds what cannot be found from outside; they record already.
    pub fn ask_flights(&mut self, flights: Vec<Flight>) {
        self.java.flights = flights;
    }

    /// Adds to the classes that grow who holds them, once the run has ended.
    pub(super) fn add_java_holders(&mut self, heaps: &mut [JavaHeap]) {
        if !self.java.searches_holders || self.ended.is_none() {
            return;
        }
        // They end here.
        let flights = std::mem::take(&mut self.java.flights);
        for heap in heaps {
            let names: Vec<_> = suspects(heap).1.map(|class| class.class.clone()).collect();
            let mut found = self.holders_of(heap.pid, &names);
            let searched = names.len().min(found.len()).min(MAX_CLASSES);
            let (first, _) = found.split_at_mut(searched);
            match flights.iter().find(|flight| flight.pid() == heap.pid) {
                Some(flight) => {
                    let objects = heap.samples.last().map_or(0, |sample| sample.instances);
                    let told = flown(flight, objects, &names[..searched], first);
                    heap.flight_recording = Some(told);
                }
                None => first.iter_mut().for_each(name_the_flag),
            }
            for (name, found) in names.iter().zip(found) {
                let mut classes = heap.classes.iter_mut();
                if let Some(class) = classes.find(|class| class.class == *name) {
                    class.holders = Some(found);
                }
            }
        }
    }

    fn holders_of(&self, pid: u32, classes: &[String]) -> Vec<Holders> {
        if classes.is_empty() {
            return vec![];
        }
        let image = self.last_image(pid).map(|(image, _)| image.id);
        let mut machines = self.java.jvms.readable();
        match machines.find(|(of, _)| Some(*of) == image) {
            Some((image, jvm)) => search_classes(jvm, classes, &|handles| {
                self.whose_handles((image, jvm), handles)
            }),
            None => vec![
                Holders {
                    unsearched: vec!["its Java VM cannot be read, or has ended".to_owned()],
                    ..Holders::default()
                };
                classes.len()
            ],
        }
    }

    /// Looks for the Java objects that hold native blocks, once the run has ended.
    pub(super) fn find_java_objects(&mut self) {
        if self.ended.is_none() {
            return;
        }
        let mut pieces: HashMap<u64, Vec<Range<u64>>> = HashMap::new();
        for found in self.holders.found.values().flatten() {
            let is_new = matches!(found.by_java, ByJava::NotSearched);
            let piece = found.in_java().filter(|_| is_new);
            pieces
                .entry(found.image)
                .or_default()
                .extend(piece.cloned());
        }
        let begin = (Instant::now(), thread_cpu_ns());
        let mut links: HashMap<(u64, Range<u64>), Vec<Link>> = HashMap::new();
        for (image, mut pieces) in pieces {
            pieces.sort_unstable_by_key(|piece| (piece.start, piece.end));
            pieces.dedup();
            let mut machines = self.java.jvms.readable();
            let machine = machines.find(|(of, _)| *of == image);
            let Some((_, jvm)) = machine.filter(|_| !pieces.is_empty()) else {
                continue;
            };
            match search_natives(jvm, &pieces) {
                Ok(found) => {
                    let named = pieces.into_iter().zip(found);
                    let named = named.filter_map(|(piece, found)| Some(((image, piece), found?)));
                    links.extend(named);
                }
                Err(problem) => self.holders.unsearched.push(format!("{problem:#}")),
            }
        }
        for found in self.holders.found.values_mut().flatten() {
            if let Some(piece) = found.in_java() {
                let links = links.get(&(found.image, piece.clone()));
                found.by_java = links.map_or(ByJava::NotFound, |it| ByJava::Found(it.clone()));
            }
        }
        if let Some(searched) = &mut self.searched {
            let time = Duration::from_nanos(thread_cpu_ns().saturating_sub(begin.1));
            searched.seconds += begin.0.elapsed().as_secs_f64();
            searched.processor_seconds += time.as_secs_f64();
        }
    }
}

/// Asks a JVM, in whose heap there are so many objects, who holds what has no holder yet.
fn flown(
    flight: &Flight,
    objects: u64,
    classes: &[String],
    found: &mut [Holders],
) -> FlightRecording {
    let without = classes.iter().zip(&*found);
    let without = without.filter(|(_, holders)| holders.chains.is_empty());
    let wanted: Vec<String> = without.map(|(class, _)| class.clone()).collect();
    if wanted.is_empty() {
        return FlightRecording::Unneeded;
    }
    let mut told = flight.ask(&wanted, objects);
    for (class, holders) in classes.iter().zip(found) {
        if let Some(recorded) = told.holders.remove(class) {
            add_recorded(holders, recorded);
        } else if let FlightRecording::Failed { problem } = &told.recording
            && holders.chains.is_empty()
        {
            holders.unsearched.push(format!("with --jfr: {problem}"));
        }
    }
    told.recording
}

/// Puts what a recording told in the place of what was not found; of both it is said what is not known.
fn add_recorded(holders: &mut Holders, mut recorded: Holders) {
    let said = |prefix: &str, sentences: &[String]| -> Vec<String> {
        let sentences = sentences.iter();
        sentences.map(|it| format!("{prefix}: {it}")).collect()
    };
    let outside = said("from outside", &holders.unsearched);
    let inside = said("with --jfr", &recorded.unsearched);
    let all = outside.into_iter().chain(inside).collect();
    if recorded.chains.is_empty() {
        holders.unsearched = all;
    } else {
        recorded.unsearched = all;
        *holders = recorded;
    }
}

/// Says of what was not found how the JVM itself can be asked.
fn name_the_flag(holders: &mut Holders) {
    if holders.chains.is_empty() {
        holders.unsearched.push(NAMED_FLAG.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Chain;

    fn found(chains: Vec<Chain>, said: &str, recorded: bool) -> Holders {
        Holders {
            sampled: 3,
            chains,
            unsearched: vec![said.to_owned()],
            recorded,
            ..Holders::default()
        }
    }

    #[test]
    fn a_recording_answers_what_was_not_found_and_both_reasons_stay() {
        let chain = Chain {
            links: vec![],
            blocks: 2,
        };
        let mut holders = found(vec![], "it moves", false);
        add_recorded(&mut holders, found(vec![], "no way", true));
        assert!(!holders.recorded, "{holders:?}");
        assert_eq!(
            holders.unsearched,
            ["from outside: it moves", "with --jfr: no way"]
        );
        let mut holders = found(vec![], "it moves", false);
        add_recorded(&mut holders, found(vec![chain.clone()], "no way", true));
        assert!(holders.recorded && holders.chains == [chain.clone()]);
        assert_eq!(holders.unsearched.len(), 2);
        let mut known = found(vec![chain], "it moves", false);
        name_the_flag(&mut known);
        assert_eq!(known.unsearched, ["it moves"]);
        name_the_flag(&mut holders);
        assert_eq!(holders.unsearched.len(), 2);
        holders.chains.clear();
        name_the_flag(&mut holders);
        assert_eq!(
            holders.unsearched.last().map(String::as_str),
            Some(NAMED_FLAG)
        );
    }
}
