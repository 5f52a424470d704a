//! Who holds memory that is live: a part of the report's schema.

use serde::{Deserialize, Serialize};

/// What was found to hold a sample of live blocks, or of the objects of a Java class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// Blocks, or objects, that were looked for: the oldest live ones.
    pub sampled: u64,
    /// Those of them that no root reaches: nobody has a pointer to them, or only such
    /// blocks have. Nothing can free these any more.
    pub lost: u64,
    /// Those of them that somebody points to, but whose root was not found within the
    /// bounds of the search, and those that were freed or moved while it went on.
    pub undecided: u64,
    /// By what the others are held, most blocks first. A block counts in the shortest
    /// chain that leads to it, and in no other.
    pub chains: Vec<Chain>,
    /// What was not searched, and why: a sentence each.
    pub unsearched: Vec<String>,
    /// Whether the JVM's own flight recording told this (`--jfr`): of objects that were allocated
    /// while it went on and lived through a collection. The JVM chose them, in proportion to bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recorded: bool,
    /// Of all live blocks, not of the sample alone, those that no root reaches; `None` if that
    /// is not known: of Java's objects, and where the search was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_lost: Option<Lost>,
}

/// The search for who holds what: the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// When it began, seconds since the run's start, where the run went on meanwhile. `None` if it
    /// was after the run, whose part it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<f64>,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Processor time that reading the processes' memory took, seconds.
    pub processor_seconds: f64,
    /// What was read of it, bytes: twice what there is, since it is looked at twice.
    pub bytes: u64,
}

/// Blocks that no root reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Lost {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.blocks = self.blocks.saturating_add(other.blocks);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// One way from a root to sampled blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// What holds what, root first. The block itself is not among them.
    pub links: Vec<Link>,
    /// Of how many sampled blocks this is true.
    pub blocks: u64,
}

/// One holder in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Its name: of a global its symbol, of a stack the thread and function, of a block
    /// the function that allocated it or its class, of a Java object class and field.
    pub name: String,
    /// How many of that kind and name follow each other here, at most: 1, or the length of a list.
    pub repeated: u64,
    /// The site of a traced block, by [`super::Site::id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<u64>,
}

/// What a holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A global or static variable of a file: a root.
    Global,
    /// A variable of one thread: a root.
    ThreadLocal,
    /// A frame on a thread's stack: a root.
    Stack,
    /// Memory of a mapping that no allocator of ours has: a root, since nobody knows who
    /// holds it.
    Mapping,
    /// A block that is traced.
    Block,
    /// A block of an allocator that was allocated before the run or not followed.
    UntracedBlock,
    /// A field of a Java class: a root.
    JavaStatic,
    /// A Java thread: a root.
    JavaThread,
    /// A handle that native code has of a Java object: a root, or held by what comes before if it is
    /// known who has it.
    JniHandle,
    /// A class loader: a root.
    ClassLoader,
    /// A Java object, by the field that holds what follows.
    JavaObject,
    /// No holder: the pointer of the one before may be the end of a vector's buffer, right behind
    /// which the block lies. Nothing else leads to that.
    End,
}

impl Holders {
    /// Adds a chain, or counts it with one whose links have the same names.
    pub fn add_chain(&mut self, chain: Chain) {
        let same = |known: &&mut Chain| {
            let both = known.links.iter().zip(&chain.links);
            known.links.len() == chain.links.len()
                && both.into_iter().all(|(one, other)| one.is_like(other))
        };
        match self.chains.iter_mut().find(same) {
            Some(known) => {
                known.blocks += chain.blocks;
                for (link, other) in known.links.iter_mut().zip(chain.links) {
                    link.repeated = link.repeated.max(other.repeated);
                }
            }
            None => self.chains.push(chain),
        }
    }

    /// Adds what was found of other blocks.
    pub fn add(&mut self, other: Self) {
        self.sampled += other.sampled;
        self.lost += other.lost;
        self.undecided += other.undecided;
        if let Some(lost) = other.all_lost {
            self.all_lost.get_or_insert_default().add(lost);
        }
        for chain in other.chains {
            self.add_chain(chain);
        }
        for said in other.unsearched {
            if !self.unsearched.contains(&said) {
                self.unsearched.push(said);
            }
        }
    }

    /// Sorts the chains. Of more than `most` the blocks of the others are undecided.
    pub fn arrange(&mut self, most: usize) {
        self.chains
            .sort_by_key(|chain| std::cmp::Reverse(chain.blocks));
        let rest = self.chains.split_off(self.chains.len().min(most));
        self.undecided += rest.iter().map(|chain| chain.blocks).sum::<u64>();
    }
}

impl Link {
    /// Whether it has the same name.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.kind, &self.name, self.site) == (other.kind, &other.name, other.site)
    }
}

impl LinkKind {
    /// Whether nothing has to hold it.
    pub const fn is_root(self) -> bool {
        !matches!(
            self,
            Self::Block | Self::UntracedBlock | Self::JavaObject | Self::End
        )
    }
}
