//! Asking a run that goes on, in another terminal: who holds what holds most, now.
//!
//! A run listens at a unix socket of its own in [`FOLDER`], named by its process id, which only
//! its own user can open. A question is a line of JSON; the answer is a line of JSON, and a report
//! behind it if there is one.

mod client;
mod listener;

use std::sync::mpsc::SyncSender;

use serde::{Deserialize, Serialize};

use crate::model::Report;

pub use client::ask;
pub use listener::{Listener, Questions};

/// Where runs listen. Who makes it is root.
const FOLDER: &str = "/run/unfreed";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// A process; the run that traces it answers.
    pub pid: u32,
    /// Call paths that are to be searched for in any case, by their indices in the kernel.
    pub sites: Vec<u32>,
}

/// The first line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Head {
    /// The process is none of this run's.
    NotTraced,
    /// There is no answer, and why.
    Failed(String),
    /// A report follows. The indices that its call paths have in the kernel, by their ids.
    Report(Vec<(u64, Vec<u32>)>),
}

/// An answer.
pub enum Answer {
    /// The process is none of this run's.
    NotTraced,
    /// The report until now, with who holds what.
    Report(Box<Report>),
}

/// A question that waits for its answer. Dropping it says that the run has ended.
pub struct Asked {
    /// What is asked.
    pub question: Question,
    reply: SyncSender<Answer>,
}

impl Asked {
    /// Answers it.
    pub fn answer(self, answer: Answer) {
        // Who asked may have gone.
        let _ = self.reply.send(answer);
    }
}
