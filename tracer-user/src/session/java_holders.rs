//! Who holds the objects of the classes that grow.

use super::Session;
use crate::jvm::holders::{MAX_CLASSES, search};
use crate::model::{Holders, JavaHeap};
use crate::report::java_growth::suspects;

impl Session {
    /// Has the heaps' growing classes searched for holders from now on, when the run ends.
    pub fn search_java_holders(&mut self) {
        self.java.searches_holders = true;
    }

    /// Adds to the classes that grow who holds them, once the run has ended.
    pub(super) fn add_java_holders(&self, heaps: &mut [JavaHeap]) {
        if !self.java.searches_holders || self.ended.is_none() {
            return;
        }
        for heap in heaps {
            let names: Vec<_> = suspects(heap).1.map(|class| class.class.clone()).collect();
            let (searched, left_out) = names.split_at(names.len().min(MAX_CLASSES));
            let found = self.holders_of(heap.pid, searched);
            let not_asked = left_out.iter().map(|_| Holders {
                unsearched: vec![format!(
                    "it is not among the first {MAX_CLASSES} classes that grow"
                )],
                ..Holders::default()
            });
            let mut found = found.into_iter().chain(not_asked);
            for name in &names {
                let classes = heap.classes.iter_mut();
                let mut of_name = classes.filter(|class| class.class == *name);
                if let Some(class) = of_name.next() {
                    class.holders = found.next();
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
            Some((_, jvm)) => search(jvm, classes),
            None => vec![
                Holders {
                    unsearched: vec!["its Java VM cannot be read, or has ended".to_owned()],
                    ..Holders::default()
                };
                classes.len()
            ],
        }
    }
}
