//! Functions that are not probed, or no longer, because a probe in them would
//! harm a process.

use serde::{Deserialize, Serialize};

/// A function that was left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// The function, `malloc` for example, or a JVM's probe.
    pub function: String,
    /// The file that defines it, as the process sees it.
    pub module: String,
    /// File offset of its first instruction.
    pub file_offset: u64,
    /// The process in whose memory the cause was found. With `--follow` that
    /// may be one that is not traced, since probes are for all then.
    pub pid: u32,
    /// Its short name (`comm`).
    pub process: String,
    /// Why.
    pub cause: LeftAloneCause,
    /// Where the code in memory leads that is there instead: names of files, or
    /// `[anonymous]`, in the order in which they are passed. Empty if it is no
    /// jump that is known.
    pub leads_to: Vec<String>,
    /// When that was found, seconds since the run began; `None` if it was before a
    /// probe was placed.
    pub at: Option<f64>,
    /// What is not seen because of that, for people.
    pub unseen: String,
}

/// Why a function is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftAloneCause {
    /// Its code in memory is not the file's: an agent has hooked it, or the
    /// file has text relocations.
    Hooked,
    /// Its code can be written to, and the kernel places no breakpoints there.
    Writable,
    /// Its code could not be read.
    Unreadable,
    /// The process runs under a translator of machine code, [`LeftAlone::leads_to`],
    /// which takes breakpoints for the program's own code.
    Translated,
    /// The process has copied its code from the file to memory without one, where the
    /// kernel places no probes.
    Copied,
}

impl LeftAlone {
    /// What happened, in a sentence or two for people. Names are the target's.
    pub fn sentence(&self) -> String {
        let Self {
            function, module, ..
        } = self;
        let who = format!("{} ({})", self.process, self.pid);
        let what = match self.cause {
            LeftAloneCause::Hooked if self.leads_to.is_empty() => format!(
                "is not in the memory of {who} as it is in the file (text relocations, or a hook without a jump that is known)"
            ),
            LeftAloneCause::Hooked => format!(
                "is hooked in the memory of {who}, by a jump to {}",
                self.leads_to.join(" and on to ")
            ),
            LeftAloneCause::Writable => format!(
                "stands in memory of {who} that can be written to, as agents leave it that hook functions; the kernel places no probe there"
            ),
            LeftAloneCause::Unreadable => {
                format!("cannot be read in the memory of {who}")
            }
            LeftAloneCause::Translated => format!(
                "is mapped by {who}, which runs under {}, and that takes breakpoints for the program's own code",
                self.leads_to.join(", ")
            ),
            LeftAloneCause::Copied => {
                return format!(
                    "{function} of {module} was copied by {who} to memory without a file, where the kernel places no probes: {}",
                    self.unseen
                );
            }
        };
        let then = match self.at {
            None => "a probe could kill the process, so it is left alone".to_owned(),
            Some(at) => {
                format!("that was found {at:.1} s into the run, and the probes went at once")
            }
        };
        format!("{function} of {module} {what}: {then}; {}", self.unseen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_who_what_where_and_what_is_not_seen() {
        let mut left_alone = LeftAlone {
            function: "malloc".into(),
            module: "/lib/libc.so.6".into(),
            file_offset: 0x98930,
            pid: 17,
            process: "service".into(),
            cause: LeftAloneCause::Hooked,
            leads_to: vec!["[anonymous]".into(), "/opt/agent.so".into()],
            at: None,
            unseen: "nothing is seen".into(),
        };
        assert_eq!(
            left_alone.sentence(),
            "malloc of /lib/libc.so.6 is hooked in the memory of service (17), by a jump to [anonymous] and on to /opt/agent.so: a probe could kill the process, so it is left alone; nothing is seen"
        );
        left_alone.at = Some(3.25);
        left_alone.leads_to.clear();
        let text = left_alone.sentence();
        assert!(
            text.contains("text relocations") && text.contains("3.2 s into"),
            "{text}"
        );
    }
}
