//! How results are taken: by return probes, unless a target needs its return
//! addresses.
//!
//! The choice is one for all targets. Return probes on a function replace the
//! return addresses of every process that has probes on it, since the kernel
//! asks for whom they are only afterwards.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::{Result, bail};
use tracer_ebpf::hits::Kind;

use super::left_alone::Notice;
use super::{Session, seccomp, shadow_stack};
use crate::attach::plan::Returns;
use crate::attach::symbols::{self, Named};
use crate::attach::walkers::{self, Seen, Walker};
use crate::cli::args::ReturnsChoice;
use crate::engine::calibrate;
use crate::process::code::CodeSpace;
use crate::process::handle::ProcessHandle;
use crate::process::maps::FileId;

/// An environment is not read further: the kernel allows a quarter of the
/// stack's limit, 2 MiB as a rule.
const MAX_ENVIRONMENT: u64 = 8 << 20;

/// Nor is an allocator's configuration.
const MAX_CONFIGURATION: usize = 1024;

/// Pointers to the configuration that is built into jemalloc's users.
const CONFIGURATIONS: [&str; 3] = ["malloc_conf", "_rjem_malloc_conf", "je_malloc_conf"];

/// What was decided, and what it costs.
#[derive(Default)]
pub(super) struct ReturnsState {
    /// Why return addresses are left alone, if they are.
    reason: Option<String>,
    /// Whether return probes kill a process with a system call filter here, if
    /// that was tried.
    filter_kills: Option<bool>,
    /// What was found in running programs, by code space.
    programs: HashMap<u64, Signs>,
    /// The signs among the symbols of files.
    files: Files,
    /// Whether return probes could not be given up.
    has_failed: bool,
}

/// The symbols of files that are signs, and their addresses as linked: they are
/// read once for all processes.
type Files = HashMap<FileId, Vec<Named>>;

/// What a program itself tells.
#[derive(Default)]
struct Signs {
    /// Whether its program was there to be looked at.
    is_known: bool,
    symbols: Vec<&'static str>,
    /// Where in the process pointers to configurations are.
    configurations: Vec<u64>,
}

impl Session {
    /// What is decided before any target is known.
    pub(super) fn begin_returns(&mut self) -> Result<()> {
        if self.options.growth {
            return Ok(());
        }
        let reason = match self.options.returns {
            ReturnsChoice::Instructions => "asked for by --returns instructions",
            // A target may set up a filter at any time, and would be dead before
            // that can be noticed.
            ReturnsChoice::Auto => match seccomp::may_kill()? && self.filter_kills() {
                true => "on this kernel a return probe kills a process that has a seccomp filter",
                false => return Ok(()),
            },
            ReturnsChoice::Replace => return Ok(()),
        };
        self.leave_returns_alone(reason.to_owned())
    }

    /// Decides anew for a process with new code.
    pub(super) fn reconsider_returns(&mut self, pid: u32) -> Result<()> {
        if self.options.growth || self.engine.probes.returns() == Returns::Instructions {
            return Ok(());
        }
        let Some(code) = self.images.current_code(pid) else {
            return Ok(());
        };
        let is_new = !self.returns.programs.contains_key(&code.id());
        let signs = self.returns.programs.entry(code.id()).or_default();
        if !signs.is_known {
            *signs = Signs::of(code, &mut self.returns.files);
        }
        let walker = walker(code, signs);
        self.decide(pid, walker, is_new && seccomp::has_filter(pid))
    }

    /// Forgets what was found in a program that has ended.
    pub(super) fn forget_signs(&mut self, index: usize) {
        let image = self.images.get(index);
        if let Some(code) = image.and_then(|image| self.images.code(image)) {
            self.returns.programs.remove(&code.id());
        }
    }

    /// Looks again at what programs configure: a pointer to it is right only
    /// once the program has been relocated.
    pub(super) fn look_at_configurations(&mut self) -> Result<()> {
        if self.engine.probes.returns() == Returns::Instructions {
            return Ok(());
        }
        let running: Vec<u32> = self
            .images
            .running()
            .filter_map(|index| self.images.get(index))
            .filter(|image| {
                let code = self.images.code(image);
                let signs = code.and_then(|code| self.returns.programs.get(&code.id()));
                signs.is_some_and(|signs| !signs.configurations.is_empty())
            })
            .map(|image| image.pid)
            .collect();
        running
            .into_iter()
            .try_for_each(|pid| self.reconsider_or_give_up(pid))
    }

    fn decide(&mut self, pid: u32, walker: Option<Walker>, has_filter: bool) -> Result<()> {
        if self.engine.probes.returns() == Returns::Instructions || self.returns.has_failed {
            return Ok(());
        }
        let deadly = if has_filter && self.filter_kills() {
            Some("seccomp filter")
        } else {
            shadow_stack::return_probe_kills(pid).then_some("shadow stack")
        };
        if let Some(what) = deadly {
            let why = format!(
                "process {pid} has a {what}, and on this kernel a return probe kills such a process"
            );
            if self.options.returns == ReturnsChoice::Replace {
                bail!("{why}; leave --returns at auto");
            }
            return self.leave_returns_alone(why);
        }
        if self.options.returns == ReturnsChoice::Replace {
            return Ok(());
        }
        match walker {
            Some(Walker { what, sign }) => self.leave_returns_alone(format!(
                "process {pid} may walk its own stacks, by {what} ({sign})"
            )),
            None => Ok(()),
        }
    }

    /// Whether return probes kill a process with a filter; tried once.
    pub fn filter_kills(&mut self) -> bool {
        if let Some(known) = self.returns.filter_kills {
            return known;
        }
        // What cannot be tried is not risked.
        let kills = seccomp::return_probe_kills(&mut self.engine.object).unwrap_or(true);
        self.returns.filter_kills = Some(kills);
        kills
    }

    /// Takes results at return instructions from now on. A run that has begun
    /// goes on as it was if that cannot be.
    fn leave_returns_alone(&mut self, reason: String) -> Result<()> {
        self.withdraw_what_cannot_end();
        let (placed, refused) = match self
            .engine
            .probes
            .leave_returns_alone(&mut self.engine.object)
        {
            Ok(placed) => placed,
            Err(error) if self.engine.object.is_active() => {
                self.returns.has_failed = true;
                self.notices.push(Notice::Warning(format!(
                    "results are still taken by return probes, though {reason}: {error:#}"
                )));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for new in placed {
            let same = |old: &&mut crate::attach::probes::Described| {
                old.scope == new.scope && old.file == new.file
            };
            if let Some(old) = self.engine.placed.iter_mut().find(same) {
                *old = new;
            }
        }
        for (pid, error) in refused {
            self.give_up(pid, &error)?;
        }
        let measured = calibrate::at_instructions(
            &mut self.engine.object,
            self.options.min_size,
            self.engine.nanoseconds_per_hit,
        );
        let (cost, links) = match measured {
            Err(_) if self.engine.object.is_active() => {
                (self.engine.nanoseconds_per_hit, Vec::new())
            }
            measured => {
                self.forgive_calibration();
                measured?
            }
        };
        self.engine.probes.keep(links);
        self.notices.push(Notice::Remark(format!(
            "results are taken at return instructions ({cost:.0} ns each here): {reason}"
        )));
        self.returns.reason = Some(reason);
        Ok(())
    }

    /// The calls by which hits at return instructions were measured are none of a target.
    fn forgive_calibration(&mut self) {
        for kind in [Kind::Entry, Kind::End, Kind::Free] {
            let hits = u64::from(calibrate::PAIRS);
            self.engine.prices.forgive(kind, hits);
        }
    }

    /// Why results are taken at return instructions, if they are.
    pub fn why_instructions(&self) -> Option<&str> {
        self.returns.reason.as_deref()
    }

    /// What was not said yet of functions that are not probed.
    pub(super) fn unseen_notices(&mut self) -> Vec<Notice> {
        let unseen = self
            .engine
            .placed
            .iter_mut()
            .flat_map(|placed| &mut placed.unseen);
        let new = unseen.filter(|unseen| !unseen.seen_elsewhere && !unseen.was_told);
        new.map(|unseen| {
            unseen.was_told = true;
            Notice::Warning(format!(
                "{} of {} is not probed: {}",
                unseen.function, unseen.module, unseen.reason
            ))
        })
        .collect()
    }

    /// Functions that are not probed and not seen elsewhere.
    pub(super) fn unseen_functions(&self) -> usize {
        let unseen = self.engine.placed.iter().flat_map(|placed| &placed.unseen);
        unseen.filter(|unseen| !unseen.seen_elsewhere).count()
    }
}

/// Who walks stacks in a process, if anybody is known to.
pub fn walker_in(code: &CodeSpace) -> Option<Walker> {
    walker(code, &Signs::of(code, &mut Files::new()))
}

fn walker(code: &CodeSpace, signs: &Signs) -> Option<Walker> {
    let mut files: Vec<String> = code
        .current()
        .filter_map(|mapping| {
            let name = mapping.display_name();
            name.rsplit('/').next().map(str::to_owned)
        })
        .collect();
    files.dedup();
    walkers::recognise(&Seen {
        files: &files,
        environment: &environment(code.process()),
        symbols: &signs.symbols,
        configuration: &signs.configuration(code.process()).unwrap_or_default(),
    })
}

fn environment(process: &ProcessHandle) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = process.open_proc("environ") {
        // What could be read counts.
        let _ = file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes);
    }
    bytes
}

impl Signs {
    /// Reads the symbols of a process's program.
    fn of(code: &CodeSpace, files: &mut Files) -> Self {
        let mut signs = Self::default();
        let Some(program) = code.current().find(|mapping| code.is_program(mapping)) else {
            return signs;
        };
        signs.is_known = true;
        let Ok(file) = &program.file else {
            return signs;
        };
        let named = files.entry(file.mapped).or_insert_with(|| {
            let wanted: Vec<_> = walkers::symbols().chain(CONFIGURATIONS).collect();
            symbols::find(&file.content, &wanted).unwrap_or_default()
        });
        if named.is_empty() {
            return signs;
        }
        let range = &program.range;
        let bias = symbols::bias(&file.content, range.start.0, range.file_offset.0);
        for symbol in named {
            if CONFIGURATIONS.contains(&symbol.name) {
                let at = bias.map(|bias| bias.wrapping_add(symbol.address));
                signs.configurations.extend(at);
            } else {
                signs.symbols.push(symbol.name);
            }
        }
        signs
    }

    /// What is built into the program for its jemalloc.
    fn configuration(&self, process: &ProcessHandle) -> Option<String> {
        if self.configurations.is_empty() {
            return None;
        }
        let memory = process.open_proc("mem").ok()?;
        self.configurations.iter().find_map(|at| {
            let mut pointer = [0; 8];
            memory.read_exact_at(&mut pointer, *at).ok()?;
            let mut text = [0; MAX_CONFIGURATION];
            let read = memory
                .read_at(&mut text, u64::from_le_bytes(pointer))
                .ok()?;
            let text = text[..read].split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(text).into_owned())
        })
    }
}
