//! Roots that are no objects of the heap, and what tells threads' objects.

use anyhow::{Context, Result};

use super::graph::{Graph, Root};
use super::walk::Place;
use super::window::{Window, resident};
use crate::jvm::Jvm;
use crate::jvm::stacks;
use crate::jvm::thread_name::ThreadNames;
use crate::process::pagemap::PageMap;
use crate::process::stack;

/// More of a stack is not looked through, bytes from its end on.
const MAX_STACK: u64 = 64 << 20;

/// A living thread that can run Java code.
struct Thread {
    tid: u32,
    /// Its `JavaThread`.
    address: u64,
    /// Its `java.lang.Thread`.
    object: Option<u64>,
}

/// All of them.
pub struct Threads {
    threads: Vec<Thread>,
    names: Vec<String>,
}

impl Threads {
    /// Those that live now.
    ///
    /// # Errors
    /// Fails if the VM does not tell.
    pub fn of(jvm: &Jvm) -> Result<Self> {
        let objects = ThreadNames::of(&jvm.structs, &jvm.memory)?;
        let (mut threads, mut names) = (Vec::new(), Vec::new());
        for thread in jvm.threads()? {
            let object = objects.as_ref();
            let object = object.and_then(|it| it.object(&jvm.memory, thread.address));
            threads.push(Thread {
                tid: thread.tid,
                address: thread.address,
                object,
            });
            names.push(thread.name);
        }
        Ok(Self { threads, names })
    }

    /// The addresses of their `JavaThread`s.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.threads.iter().map(|thread| thread.address)
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Which of them a `java.lang.Thread` is.
    pub fn index_of(&self, object: u64) -> Option<usize> {
        let mut threads = self.threads.iter();
        threads.position(|thread| thread.object == Some(object))
    }

    /// Adds the words of their stacks that are addresses of what is sought. A word may be a
    /// number, or of a variable that is not used any more.
    ///
    /// # Errors
    /// Fails if the stacks or the page map cannot be read.
    pub fn add_stacks(&self, jvm: &Jvm, graph: &mut Graph) -> Result<()> {
        let pages = PageMap::open(&jvm.process).context("cannot open its page map")?;
        for (index, thread) in self.threads.iter().enumerate() {
            let range = stacks::of_thread(jvm, thread.address)?;
            let top = stack::pointer(&jvm.process, thread.tid);
            let (Some(range), Some(top)) = (range, top) else {
                continue;
            };
            if !range.contains(&top) || range.end - top > MAX_STACK {
                continue;
            }
            let words = top / 8 * 8..range.end;
            let runs = resident(&pages, std::iter::once(words.clone()));
            let runs = runs.context("cannot read its page map")?;
            let mut window = Window::new(&jvm.memory, runs);
            for address in words.step_by(8) {
                let word = window.u64(address).unwrap_or(0);
                if graph.is_sought(word) {
                    let root = (address, None, Some(Root::Stack(index)));
                    graph.hold(root, Place::Element, word);
                }
            }
        }
        Ok(())
    }
}
