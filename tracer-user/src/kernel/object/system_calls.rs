//! The programs at system calls: the roads by which the kernel tells of them.

use std::{env, fmt};

use anyhow::{Context, Result, anyhow, bail};
use aya::Btf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::{FEntry, FExit, Program, ProgramFd};

use super::{Object, program};

/// How the kernel tells of system calls that change mappings or start threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemCalls {
    /// Not at all.
    None,
    /// At its functions for these calls.
    Own,
    /// At a trace event of each of these calls.
    Each,
    /// At tracepoints that every system call of every process passes.
    All,
}

/// Forces a road, for tests: `functions`, `events` or `tracepoints`.
const FORCED: &str = "UNFREED_SYSTEM_CALLS";

impl SystemCalls {
    /// All but the first, those first that cost least.
    const ROADS: [Self; 3] = [Self::Own, Self::Each, Self::All];

    /// The road that the environment forces, if it does.
    ///
    /// # Errors
    /// Fails if it names one that does not exist.
    pub fn forced() -> Result<Option<Self>> {
        match env::var(FORCED).as_deref() {
            Err(_) => Ok(None),
            Ok("functions") => Ok(Some(Self::Own)),
            Ok("events") => Ok(Some(Self::Each)),
            Ok("tracepoints") => Ok(Some(Self::All)),
            Ok(road) => bail!("{FORCED} is {road}; it can be functions, events or tracepoints"),
        }
    }

    /// Those to try, in this order. Whether every system call may cost more is
    /// `at_any_cost`.
    fn roads(forced: Option<Self>, at_any_cost: bool) -> Vec<Self> {
        match (forced, at_any_cost) {
            (Some(road), _) => vec![road],
            (None, true) => Self::ROADS.to_vec(),
            (None, false) => vec![Self::Own],
        }
    }
}

impl fmt::Display for SystemCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "at libc's functions",
            Self::Own => "at the kernel's functions for them",
            Self::Each => "at the trace events of single system calls",
            Self::All => "at the tracepoints of all system calls",
        })
    }
}

/// A program at a system call in the kernel.
pub(super) struct SystemCall {
    /// What the kernel calls its function for it.
    function: &'static str,
    /// Whether that is when it returns.
    pub(super) at_return: bool,
    /// The first that the kernel takes is attached.
    programs: &'static [Variant],
}

/// One that there are two of, if another goes on where it ends: the kernel compares the
/// types of the functions that both were made for, with the names of parameters.
struct Variant {
    program: &'static str,
    /// The other program, and the map that it is put into.
    rest: Option<[&'static str; 2]>,
}

macro_rules! alone {
    ($program:literal) => {
        &[Variant {
            program: $program,
            rest: None,
        }]
    };
}

macro_rules! goes_on {
    ($first:literal, $second:literal, [$rest:literal, $other:literal], [$map:literal, $into:literal]) => {
        &[
            Variant {
                program: $first,
                rest: Some([$rest, $map]),
            },
            Variant {
                program: $second,
                rest: Some([$other, $into]),
            },
        ]
    };
    ($first:literal, $second:literal, at_entry) => {
        goes_on!(
            $first,
            $second,
            ["uf_call_e", "uf_call_e2"],
            ["ENTERED", "ENTERED_2"]
        )
    };
    ($first:literal, $second:literal, at_return) => {
        goes_on!(
            $first,
            $second,
            ["uf_call_x", "uf_call_x2"],
            ["RETURNED", "RETURNED_2"]
        )
    };
}

const fn entry(function: &'static str, programs: &'static [Variant]) -> SystemCall {
    SystemCall {
        function,
        at_return: false,
        programs,
    }
}

const fn exit(function: &'static str, programs: &'static [Variant]) -> SystemCall {
    SystemCall {
        function,
        at_return: true,
        programs,
    }
}

impl SystemCall {
    /// The name of its trace event, if its function's name begins as it should.
    pub(super) fn event(&self) -> Option<String> {
        let moment = if self.at_return { "exit" } else { "enter" };
        let call = self.function.strip_prefix(FUNCTIONS)?;
        Some(format!("sys_{moment}_{call}"))
    }
}

/// What the names of the kernel's functions for system calls begin with.
const FUNCTIONS: &str = "__x64_sys_";

/// Ends of mappings first, so that none seems to stay that is gone.
pub(super) const SYSTEM_CALLS: [SystemCall; 14] = [
    exit("__x64_sys_munmap", alone!("uf_munmap_x")),
    entry("__x64_sys_munmap", alone!("uf_munmap_e")),
    exit("__x64_sys_shmdt", alone!("uf_shmdt_x")),
    entry("__x64_sys_shmdt", alone!("uf_shmdt_e")),
    exit(
        "__x64_sys_mremap",
        goes_on!("uf_mremap_x", "uf_mremap_x2", at_return),
    ),
    entry("__x64_sys_mremap", alone!("uf_mremap_e")),
    exit(
        "__x64_sys_brk",
        goes_on!("uf_brk_x", "uf_brk_x2", at_return),
    ),
    entry("__x64_sys_brk", alone!("uf_brk_e")),
    exit(
        "__x64_sys_mmap",
        goes_on!("uf_mmap_x", "uf_mmap_x2", at_return),
    ),
    exit(
        "__x64_sys_mprotect",
        goes_on!("uf_mprotect_x", "uf_mprotect_x2", at_return),
    ),
    exit(
        "__x64_sys_pkey_mprotect",
        goes_on!("uf_pkey_x", "uf_pkey_x2", at_return),
    ),
    exit(
        "__x64_sys_shmat",
        goes_on!("uf_shmat_x", "uf_shmat_x2", at_return),
    ),
    entry(
        "__x64_sys_clone",
        goes_on!("uf_clone_e", "uf_clone_e2", at_entry),
    ),
    entry(
        "__x64_sys_clone3",
        goes_on!("uf_clone3_e", "uf_clone3_e2", at_entry),
    ),
];

impl Object {
    /// Attaches the programs at the system calls that change mappings or start
    /// threads. All of them or none. Whether every system call of every process may cost
    /// more for it is `at_any_cost`.
    ///
    /// # Errors
    /// Fails on a kernel that has none of the roads that may be taken.
    pub fn attach_system_calls(
        &mut self,
        forced: Option<SystemCalls>,
        at_any_cost: bool,
    ) -> Result<()> {
        let mut refused = anyhow!("there is no road to them");
        for road in SystemCalls::roads(forced, at_any_cost) {
            match self.attach_by(road, forced.is_some()) {
                Ok(()) => {
                    self.system_calls = road;
                    return Ok(());
                }
                Err(error) => {
                    self.explain(&format!("system calls are not seen {road}"), &error);
                    refused = error;
                }
            }
        }
        Err(refused)
    }

    fn attach_by(&mut self, road: SystemCalls, is_forced: bool) -> Result<()> {
        match road {
            SystemCalls::None => Ok(()),
            SystemCalls::Own => self.attach_to_functions(),
            SystemCalls::Each => self.attach_to_events(is_forced),
            SystemCalls::All => self.attach_to_tracepoints(),
        }
    }

    /// Says why a road is not taken, if the programs' log was asked for.
    fn explain(&self, what: &str, error: &anyhow::Error) {
        if self.log.is_some() {
            eprintln!("unfreed: {what}: {error:#}");
        }
    }

    /// At the kernel's own functions, which costs nothing to those who do not call
    /// them.
    fn attach_to_functions(&mut self) -> Result<()> {
        let types = Btf::from_sys_fs()?;
        let mut calls = SYSTEM_CALLS.iter();
        let attached = calls.try_for_each(|call| {
            self.attach_system_call(call, &types)
                .with_context(|| format!("cannot attach to {}", call.function))
        });
        if attached.is_err() {
            self.unload_system_calls();
        }
        attached
    }

    fn attach_system_call(&mut self, call: &SystemCall, types: &Btf) -> Result<()> {
        let mut refused = None;
        for variant in call.programs {
            match self.attach_variant(call, variant, types) {
                Ok(()) => return Ok(()),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn attach_variant(&mut self, call: &SystemCall, variant: &Variant, types: &Btf) -> Result<()> {
        let (function, at_return) = (call.function, call.at_return);
        if let Some([rest, map]) = variant.rest
            && self.load_at(function, at_return, rest, types)?
        {
            let loaded = match self.ebpf.program(rest) {
                Some(Program::FEntry(program)) => program.fd()?.try_clone()?,
                Some(Program::FExit(program)) => program.fd()?.try_clone()?,
                _ => return Err(anyhow!("the BPF object has no program {rest}")),
            };
            self.chain(map, &loaded)?;
        }
        self.load_at(function, at_return, variant.program, types)?;
        if at_return {
            program::<FExit>(&mut self.ebpf, variant.program)?.attach()?;
        } else {
            program::<FEntry>(&mut self.ebpf, variant.program)?.attach()?;
        }
        Ok(())
    }

    /// Loads a program for a function of the kernel's. Whether it was not there yet.
    fn load_at(
        &mut self,
        function: &str,
        at_return: bool,
        name: &str,
        types: &Btf,
    ) -> Result<bool> {
        if at_return {
            let program: &mut FExit = program(&mut self.ebpf, name)?;
            let is_new = program.fd().is_err();
            if is_new {
                program.load(function, types)?;
            }
            return Ok(is_new);
        }
        let program: &mut FEntry = program(&mut self.ebpf, name)?;
        let is_new = program.fd().is_err();
        if is_new {
            program.load(function, types)?;
        }
        Ok(is_new)
    }

    /// Has the programs that use a map go on with another.
    pub(super) fn chain(&mut self, map: &str, next: &ProgramFd) -> Result<()> {
        let map = self.ebpf.map_mut(map);
        let map = map.context("the BPF object has no such map")?;
        let mut programs: ProgramArray<&mut MapData> = map.try_into()?;
        programs
            .set(0, next, 0)
            .context("the kernel refused to chain the BPF programs")
    }

    /// Takes the programs at system calls away again.
    fn unload_system_calls(&mut self) {
        let variants = SYSTEM_CALLS.iter().flat_map(|call| call.programs);
        for variant in variants {
            let rest = variant.rest.map(|[program, _]| program);
            for name in [Some(variant.program), rest].into_iter().flatten() {
                // One that was not loaded is no matter.
                let _ = match self.ebpf.program_mut(name) {
                    Some(Program::FEntry(program)) => program.unload(),
                    Some(Program::FExit(program)) => program.unload(),
                    _ => Ok(()),
                };
            }
        }
    }

    /// How mappings are seen in the kernel, whoever calls it.
    pub fn system_calls(&self) -> SystemCalls {
        self.system_calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::{OBJECT, OBJECT_FIND_VMA};

    #[test]
    fn a_budget_lets_no_other_system_call_pay() {
        use SystemCalls::{All, Each, Own};
        assert_eq!(SystemCalls::roads(None, true), [Own, Each, All]);
        assert_eq!(SystemCalls::roads(None, false), [Own]);
        assert_eq!(SystemCalls::roads(Some(All), false), [All]);
    }

    #[test]
    fn each_call_has_a_trace_event() {
        let events: Vec<_> = SYSTEM_CALLS.iter().filter_map(SystemCall::event).collect();
        assert_eq!(events.len(), SYSTEM_CALLS.len());
        assert_eq!(events[..2], ["sys_exit_munmap", "sys_enter_munmap"]);
    }

    #[test]
    fn the_objects_have_every_program() {
        for object in [OBJECT, OBJECT_FIND_VMA] {
            let object = aya_obj::Object::parse(object).unwrap();
            let variants = SYSTEM_CALLS.iter().flat_map(|call| call.programs);
            let rests = variants.clone().filter_map(|variant| variant.rest);
            for [program, map] in rests {
                assert!(object.maps.contains_key(map), "{map}");
                assert!(object.programs.contains_key(program), "{program}");
            }
            for variant in variants {
                let name = variant.program;
                assert!(object.programs.contains_key(name), "{name}");
                assert!(name.len() <= 15, "{name} is cut by the kernel");
            }
        }
    }
}
