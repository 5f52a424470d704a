//! Names of holders, from the files of their process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::budget::Budget;
use super::members::Members;
use super::settle::{ByJava, OfSite, Outcome};
use super::threads::InThread;
use super::variables::Variables;
use super::way::{Class, RawLink};
use crate::model::{Chain, Holders, Link, LinkKind};
use crate::process::code::{CodeMapping, CodeSpace};
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;
use crate::symbolize::{debug_file_of, demangle};

/// A table of virtual functions, as the linker names it.
const TABLE: &str = "_ZTV";
/// Chains that are told of a site.
const MAX_CHAINS: usize = 16;

/// What is said between a holder and a block to which it may not lead.
const END: &str = "an address that may only be the end of the block before";

/// What is said of blocks that Java objects hold which were not found.
const NOT_FOUND: &str = "words of the Java heap lead to some blocks, and what these words are was \
     not found: static `long` fields, arrays of `long`, weak references and objects that are \
     garbage are not followed";

/// The same where nobody has looked yet.
const NOT_SEARCHED: &str = "words of the Java heap lead to some blocks: which objects these are is \
     looked for when a run with --holders ends";

/// Processor time that reading debug information may take: beyond it members have no names.
const MEMBERS: Duration = Duration::from_secs(2);

/// Gives names, and keeps what it read of files.
pub struct Namer {
    files: HashMap<FileId, Arc<Variables>>,
    /// What debug information says of a file's classes and variables, if it has any.
    members: HashMap<FileId, Option<Members>>,
    budget: Budget,
}

impl Default for Namer {
    fn default() -> Self {
        Self {
            files: HashMap::new(),
            members: HashMap::new(),
            budget: Budget::new(MEMBERS, Arc::default()),
        }
    }
}

impl Namer {
    /// What is said of the blocks of a site. Links of traced blocks have no name yet, and in
    /// the place of a site's id its index in the kernel.
    pub fn holders(&mut self, site: &OfSite, unsearched: &[String]) -> Option<Holders> {
        let found = &site.found;
        if found.is_empty() && site.lost.is_none_or(|lost| lost.blocks == 0) {
            return None;
        }
        let mut holders = Holders {
            sampled: found.len() as u64,
            unsearched: unsearched.to_vec(),
            all_lost: site.lost,
            ..Holders::default()
        };
        for found in found {
            match &found.outcome {
                Outcome::Lost => holders.lost += 1,
                Outcome::Undecided => holders.undecided += 1,
                Outcome::Held(links) => {
                    let by_java = match (&found.by_java, found.in_java()) {
                        (_, None) => &[],
                        (ByJava::Found(links), _) => &links[..],
                        (ByJava::NotFound, _) => {
                            undecided(&mut holders, NOT_FOUND);
                            continue;
                        }
                        (ByJava::NotSearched, _) => {
                            undecided(&mut holders, NOT_SEARCHED);
                            continue;
                        }
                    };
                    let named = found.named.get_or_init(|| {
                        let by_java = usize::from(found.in_java().is_some());
                        self.links(&found.code, links.get(by_java..).unwrap_or_default())
                    });
                    let links = by_java.iter().chain(named).cloned().collect();
                    holders.add_chain(Chain { links, blocks: 1 });
                }
            }
        }
        holders.arrange(MAX_CHAINS);
        Some(holders)
    }

    /// The names of links in a process with this code. Of traced blocks as [`Self::holders`] says.
    pub fn links(&mut self, code: &CodeSpace, links: &[(RawLink, u64)]) -> Vec<Link> {
        let named = links.iter().map(|(it, count)| self.link(code, it, *count));
        named.collect()
    }

    fn link(&mut self, code: &CodeSpace, link: &RawLink, repeated: u64) -> Link {
        let (kind, name, site) = match link {
            RawLink::Data(file, address) => {
                (LinkKind::Global, self.global(code, *file, *address), None)
            }
            RawLink::Thread { id, name, place } => {
                let (kind, what) = self.of_thread(code, place);
                let thread = format!("{name} ({id})");
                match what {
                    Some(what) => (kind, format!("{what} of thread {thread}"), None),
                    None => (kind, thread, None),
                }
            }
            RawLink::Heap => (
                LinkKind::UntracedBlock,
                "somewhere in the heap".into(),
                None,
            ),
            RawLink::Java(_) => (LinkKind::JavaObject, "the Java heap".into(), None),
            RawLink::Mapping(name) if name.is_empty() => {
                (LinkKind::Mapping, "memory without a file".into(), None)
            }
            RawLink::Mapping(name) => (LinkKind::Mapping, name.clone(), None),
            RawLink::Block(site, class) => {
                let class = class.and_then(|class| self.class(code, class));
                let site = u64::from(*site);
                (LinkKind::Block, class.unwrap_or_default(), Some(site))
            }
            RawLink::Chunk(size, class) => {
                let class = class.and_then(|class| self.class(code, class));
                let name = class.unwrap_or_else(|| format!("a block of {size} bytes"));
                (LinkKind::UntracedBlock, name, None)
            }
            RawLink::End => (LinkKind::End, END.to_owned(), None),
        };
        Link {
            kind,
            name,
            repeated,
            site,
        }
    }

    /// A variable, and the file that it is of.
    fn global(&mut self, code: &CodeSpace, file: FileId, address: u64) -> String {
        let Some((module, mapping)) = module_of(code, file) else {
            return "a variable of a file that is not mapped as code".into();
        };
        let path = mapping.display_name();
        let base = path.rsplit('/').next().unwrap_or_default().to_owned();
        let variables = self.variables(file, &module);
        let bias = variables
            .segments
            .bias(mapping.range.file_offset.0, mapping.range.start.0);
        let linked = address.wrapping_sub(bias.unwrap_or_default());
        let Some((name, start)) = variables.global(&module.content, linked) else {
            return format!("{base}+{linked:#x}, data without a symbol");
        };
        let name = demangle(&name);
        let members = self.members(code, file);
        let member = members.and_then(|it| it.of_variable(start, linked.wrapping_sub(start)));
        match member {
            Some(member) => format!("{name}.{member} ({base})"),
            // Which element of an array it is would make a chain of each.
            None => format!("{name} ({base})"),
        }
    }

    /// What a place of a thread is; without words if it is on the stack.
    fn of_thread(&mut self, code: &CodeSpace, place: &InThread) -> (LinkKind, Option<String>) {
        let what = match place {
            InThread::Stack => None,
            InThread::Descriptor => Some("thread-specific data".to_owned()),
            InThread::Local(file, offset) => Some(self.local(code, *file, *offset)),
            InThread::Before(before) => self.before(code, *before),
        };
        match what {
            Some(what) => (LinkKind::ThreadLocal, Some(what)),
            None => (LinkKind::Stack, None),
        }
    }

    /// A thread-local of a file, at an offset.
    fn local(&mut self, code: &CodeSpace, file: FileId, offset: u64) -> String {
        let Some((module, mapping)) = module_of(code, file) else {
            return "thread-local data".to_owned();
        };
        match self.variables(file, &module).local(&module.content, offset) {
            Some(name) => format!("thread-local {}", demangle(&name)),
            None => {
                let path = mapping.display_name();
                let base = path.rsplit('/').next().unwrap_or_default();
                format!("thread-local data of {base}")
            }
        }
    }

    /// The thread-local that is so far before a thread's descriptor, if the program's are
    /// nearest to it; `None` if there is none.
    fn before(&mut self, code: &CodeSpace, before: u64) -> Option<String> {
        let program = code.current().find(|mapping| code.is_program(mapping));
        let program = program.and_then(|mapping| module_of(code, mapping.range.file));
        let mut own = 0;
        if let Some((module, mapping)) = program {
            let variables = self.variables(mapping.range.file, &module);
            let (size, align) = variables.segments.thread_locals.unwrap_or((0, 1));
            own = size.checked_next_multiple_of(align.max(1)).unwrap_or(0);
            let offset = own.checked_sub(before);
            let found = offset.and_then(|at| variables.local(&module.content, at));
            if let Some(name) = found {
                let name = demangle(&name);
                return Some(format!("thread-local {name}"));
            }
        }
        (before <= own + self.others(code)).then(|| "thread-local data".to_owned())
    }

    /// Bytes of the thread-locals of libraries, at most: those that are opened later have
    /// theirs elsewhere.
    fn others(&mut self, code: &CodeSpace) -> u64 {
        let libraries = code.current().filter(|mapping| !code.is_program(mapping));
        let mut ids: Vec<FileId> = libraries.map(|mapping| mapping.range.file).collect();
        ids.sort_by_key(|id| (id.device.major, id.device.minor, id.inode));
        ids.dedup();
        let sizes = ids.into_iter().filter_map(|id| {
            let (module, _) = module_of(code, id)?;
            let (size, align) = self.variables(id, &module).segments.thread_locals?;
            size.checked_next_multiple_of(align.clamp(1, 4096))
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// The class of an object that begins with an address of constant data, and its member that leads
    /// on, if that is known.
    fn class(&mut self, code: &CodeSpace, Class { file, table, at }: Class) -> Option<String> {
        let (module, mapping) = module_of(code, file)?;
        let variables = self.variables(file, &module);
        let bias = variables
            .segments
            .bias(mapping.range.file_offset.0, mapping.range.start.0)?;
        let (name, _) = variables.global(&module.content, table.wrapping_sub(bias))?;
        let class = name.strip_prefix(TABLE)?;
        // As the name of its type information, which says the class alone.
        let text = demangle(&format!("_ZTI{class}"));
        let class = text.strip_prefix("typeinfo for ").unwrap_or(&text);
        let members = self.members(code, file);
        let member = members.and_then(|it| it.of_class(class, at));
        Some(match member {
            Some(member) => format!("{class}::{member}"),
            None => class.to_owned(),
        })
    }

    /// What debug information says of a file, its own or that of its debug file.
    fn members(&mut self, code: &CodeSpace, file: FileId) -> Option<&Members> {
        let budget = &mut self.budget;
        let known = self.members.entry(file).or_insert_with(|| {
            let (module, mapping) = module_of(code, file)?;
            if module.content.changed() {
                return None;
            }
            Members::read(&module.content, budget).or_else(|| {
                let path = mapping.range.name.path();
                let debug = debug_file_of(code.process(), path, &module)?;
                Members::read(&debug, budget)
            })
        });
        known.as_ref()
    }

    fn variables(&mut self, id: FileId, module: &ModuleFile) -> Arc<Variables> {
        let known = self.files.entry(id);
        let read = || Arc::new(Variables::read(&module.content));
        Arc::clone(known.or_insert_with(read))
    }
}

/// Counts a block whose holder is not known, for this reason.
fn undecided(holders: &mut Holders, why: &str) {
    holders.undecided += 1;
    if !holders.unsearched.iter().any(|it| it == why) {
        holders.unsearched.push(why.to_owned());
    }
}

/// A file that a process has code of, and where.
fn module_of(code: &CodeSpace, file: FileId) -> Option<(Arc<ModuleFile>, &CodeMapping)> {
    let mapping = code.of_file(file)?;
    let module = mapping.file.as_ref().ok()?;
    Some((Arc::clone(module), mapping))
}
