//! Whose the stacks of threads are.

use std::collections::HashMap;

/// The threads whose stacks are in mappings that are known.
#[derive(Debug, Clone, Default)]
pub struct ThreadStacks {
    /// By mapping.
    stacks: HashMap<u64, Stack>,
    /// The mapping of a thread's stack.
    of: HashMap<u32, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Stack {
    state: State,
    thread: u32,
    cleared: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// The C library keeps the stack until somebody joins the thread.
    Ended,
    /// The C library may give it to the next thread.
    Joined,
}

impl ThreadStacks {
    /// A thread has that mapping for its stack; where the kernel writes 0 when it
    /// ends is `cleared`.
    pub fn born(&mut self, mapping: u64, thread: u32, cleared: u64) {
        let stack = Stack {
            state: State::Running,
            thread,
            cleared,
        };
        if let Some(before) = self.stacks.insert(mapping, stack) {
            self.of.remove(&before.thread);
        }
        self.of.insert(thread, mapping);
    }

    /// A thread ended.
    pub fn ended(&mut self, thread: u32) {
        let mapping = self.of.remove(&thread);
        if let Some(stack) = mapping.and_then(|mapping| self.stacks.get_mut(&mapping)) {
            stack.state = State::Ended;
        }
    }

    /// The thread of a stack was joined.
    pub fn joined(&mut self, mapping: u64) {
        if let Some(stack) = self.stacks.get_mut(&mapping) {
            stack.state = State::Joined;
        }
    }

    /// The mapping is gone.
    pub fn forget(&mut self, mapping: u64) {
        if let Some(stack) = self.stacks.remove(&mapping)
            && self.of.get(&stack.thread) == Some(&mapping)
        {
            self.of.remove(&stack.thread);
        }
    }

    /// The stacks of threads that ended and are not known to be joined, with where
    /// the kernel wrote that they ended.
    pub fn ended_unjoined(&self) -> Vec<(u64, u64)> {
        let ended = self.stacks.iter();
        let ended = ended.filter(|(_, it)| it.state == State::Ended && it.cleared != 0);
        ended.map(|(mapping, it)| (*mapping, it.cleared)).collect()
    }

    /// How many of these mappings are stacks of threads that run, that ended, and
    /// that were joined.
    pub fn count(&self, mappings: impl Iterator<Item = u64>) -> [u64; 3] {
        let mut counts = [0; 3];
        for stack in mappings.filter_map(|mapping| self.stacks.get(&mapping)) {
            counts[match stack.state {
                State::Running => 0,
                State::Ended => 1,
                State::Joined => 2,
            }] += 1;
        }
        counts
    }
}
