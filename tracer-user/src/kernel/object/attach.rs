//! Loading programs, and attaching them.

use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use aya::Btf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use aya::programs::{FEntry, FExit, Program, ProgramFd, RawTracePoint, UProbe};
use tracer_ebpf::call::Function;

use super::{Object, program};
use crate::kernel::link::{Link, cookies};
use crate::kernel::program::{Moment, Place};
use crate::privilege::capability::{EVENT, with};
use crate::process::address::FileOffset;

/// The program at all places of USDT probes.
const USDT: &str = "uf_usdt";

/// The program of session links.
const SESSION: &str = "uf_session";

/// The program that does nothing.
const EMPTY: &str = "uf_empty";

/// The program at the probe that a JVM hits for each object.
const OBJECTS: &str = "uf_java_new";

/// How the kernel tells of system calls that change mappings or start threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemCalls {
    /// Not at all.
    None,
    /// At its functions for these calls.
    Own,
    /// At tracepoints that every system call of every process passes.
    All,
}

/// A program at a system call in the kernel.
struct SystemCall {
    function: &'static str,
    at_return: bool,
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

/// Ends of mappings first, so that none seems to stay that is gone.
const SYSTEM_CALLS: [SystemCall; 14] = [
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

/// The program that those at tracepoints go on with, and its map.
const REST: [&str; 2] = ["uf_sys_rest", "PASSED"];

impl Object {
    /// Attaches the probes on the birth and death of processes and threads.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn attach_lifecycle(&mut self) -> Result<()> {
        self.attach_tracepoint("uf_ended", "sched_process_exit")?;
        self.attach_tracepoint("uf_exit", "sched_process_exit")?;
        self.attach_tracepoint("uf_exec", "sched_process_exec")?;
        self.attach_tracepoint("uf_unmapped", "vm_unmapped_area")?;
        self.attach_tracepoint("uf_newtask", "task_newtask")
    }

    /// Attaches the probes that notice `vfork` children whose calls are
    /// hidden from us. To be called before [`Self::attach_lifecycle`]: these
    /// probes come first.
    ///
    /// # Errors
    /// Fails when the kernel does, as it does before 6.10.
    pub fn attach_child_watch(&mut self) -> Result<()> {
        self.attach_tracepoint("uf_leave_mem", "sched_prepare_exec")?;
        self.attach_tracepoint("uf_leave_mem", "sched_process_exit")
    }

    /// Attaches the programs at the system calls that change mappings or start
    /// threads. All of them or none.
    ///
    /// # Errors
    /// Fails on a kernel that cannot trace its own functions.
    pub fn attach_system_calls(&mut self) -> Result<()> {
        match self.attach_to_functions() {
            Ok(()) => {
                self.system_calls = SystemCalls::Own;
                return Ok(());
            }
            Err(error) => self.explain("system calls are seen at tracepoints", &error),
        }
        match self.attach_to_tracepoints() {
            Ok(()) => {
                self.system_calls = SystemCalls::All;
                Ok(())
            }
            Err(error) => {
                self.explain("system calls are not seen in the kernel", &error);
                Err(error)
            }
        }
    }

    /// Says why a road is not taken, if the programs' log was asked for.
    fn explain(&self, what: &str, error: &anyhow::Error) {
        if self.log.is_some() {
            eprintln!("unfreed: {what}: {error:#}");
        }
    }

    /// At tracepoints that every system call of every process passes.
    fn attach_to_tracepoints(&mut self) -> Result<()> {
        let [rest, map] = REST;
        self.load_tracepoint(rest)?;
        let program: &mut RawTracePoint = program(&mut self.ebpf, rest)?;
        let loaded = program.fd()?.try_clone()?;
        self.chain(map, &loaded)?;
        self.attach_tracepoint("uf_sys_exit", "sys_exit")?;
        self.attach_tracepoint("uf_sys_enter", "sys_enter")
    }

    /// The same at the kernel's own functions, which costs nothing to those who do
    /// not call them.
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
    fn chain(&mut self, map: &str, next: &ProgramFd) -> Result<()> {
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

    /// Attaches the programs that are told of page faults, and of pages that are moved.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn attach_faults(&mut self) -> Result<()> {
        self.attach_tracepoint("uf_pages_move", "vm_unmapped_area")?;
        self.attach_tracepoint("uf_kernel_fault", "page_fault_kernel")?;
        self.attach_tracepoint("uf_user_fault", "page_fault_user")
    }

    fn attach_tracepoint(&mut self, name: &str, tracepoint: &str) -> Result<()> {
        self.load_tracepoint(name)?;
        let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
        program
            .attach(tracepoint)
            .with_context(|| format!("cannot attach to {tracepoint}"))?;
        Ok(())
    }

    fn load_tracepoint(&mut self, name: &str) -> Result<()> {
        let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program
                .load()
                .with_context(|| format!("the kernel refused the BPF program {name}"))?;
        }
        Ok(())
    }

    /// Loads the programs that watch these functions at a moment, which takes
    /// some 20 ms each.
    ///
    /// # Errors
    /// Fails when the kernel refuses a program.
    pub fn load_programs(&mut self, moment: Moment, places: &[Place]) -> Result<()> {
        if moment == Moment::Return
            && self.has_sessions()
            && let Some(sessions) = &mut self.sessions
        {
            sessions.load(SESSION)?;
        }
        if let Some(multi) = &mut self.multi {
            multi.load(self.programs.at(moment))?;
            return Ok(());
        }
        if cookies() {
            return self.load_alone(self.programs.at(moment));
        }
        for place in places {
            self.load_program(self.programs.of(moment, place.function))?;
        }
        Ok(())
    }

    /// Attaches the programs of a moment to places of a file, in one process
    /// or (with `None`) in all that map the file.
    ///
    /// # Errors
    /// Fails when the kernel refuses a program or a place.
    pub fn attach(
        &mut self,
        moment: Moment,
        places: &[Place],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        let may_throw = |place: &Place| place.function.is_some_and(Function::may_throw);
        ensure!(
            moment != Moment::Return || !places.iter().any(may_throw),
            "a return probe on a function that may throw would end the program"
        );
        if self.programs.leave_out(moment) {
            return Ok(Vec::new());
        }
        if let Some(multi) = &mut self.multi {
            let name = self.programs.at(moment);
            return Ok(vec![multi.attach(name, moment, places, file, pid)?]);
        }
        places
            .iter()
            .map(|place| self.attach_event(moment, *place, file, pid))
            .collect()
    }

    /// Attaches the program that tells of entries and returns, by a session link.
    ///
    /// # Errors
    /// Fails when the kernel refuses the program or a place.
    pub fn attach_session(
        &mut self,
        places: &[Place],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        let may_throw = |place: &Place| place.function.is_some_and(Function::may_throw);
        ensure!(
            !places.iter().any(may_throw),
            "a return probe on a function that may throw would end the program"
        );
        let sessions = self.sessions.as_mut();
        let sessions = sessions.context("there are no session links")?;
        sessions.attach(SESSION, Moment::Entry, places, file, pid)
    }

    fn attach_event(
        &mut self,
        moment: Moment,
        place: Place,
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        if cookies() {
            let name = self.programs.at(moment);
            self.load_alone(name)?;
            return self.attach_loaded(name, place.offset, Some(place.cookie()), file, pid);
        }
        let name = self.programs.of(moment, place.function);
        self.load_program(name)?;
        self.attach_loaded(name, place.offset, None, file, pid)
    }

    /// Attaches a program, by a perf event on every kernel, to an offset of a
    /// file.
    ///
    /// # Errors
    /// Fails when the kernel refuses the program or the place.
    pub fn attach_one(
        &mut self,
        name: &str,
        offset: u64,
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        self.load_alone(name)?;
        self.attach_loaded(name, offset, None, file, pid)
    }

    fn attach_loaded(
        &mut self,
        name: &str,
        offset: u64,
        cookie: Option<u64>,
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        let program: &mut UProbe = program(&mut self.ebpf, name)?;
        let scope = match pid.and_then(NonZeroU32::new) {
            Some(pid) => UProbeScope::OneProcess(pid),
            None => UProbeScope::AllProcesses,
        };
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie,
        };
        let attached = with(EVENT, || program.attach(point, file, scope));
        let link = attached.with_context(|| {
            format!(
                "cannot place a probe at offset {offset:#x} of {}",
                file.display()
            )
        })?;
        Ok(Link::PerfEvent(program.take_link(link)?))
    }

    /// Programs for one function each go on with one that finds sites.
    fn load_program(&mut self, name: &str) -> Result<()> {
        self.load_alone(name)?;
        let site: &mut UProbe = program(&mut self.ebpf, "uf_site")?;
        if site.fd().is_err() {
            self.load_alone("uf_site")?;
            let site: &mut UProbe = program(&mut self.ebpf, "uf_site")?;
            let site = site.fd()?.try_clone()?;
            self.chain("NEXT", &site)?;
        }
        Ok(())
    }

    fn load_alone(&mut self, name: &str) -> Result<()> {
        let program: &mut UProbe = program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program
                .load()
                .with_context(|| format!("the kernel refused the BPF program {name}"))?;
        }
        Ok(())
    }

    /// Attaches the program of USDT probes to offsets of a file, in one process
    /// or (with `None`) in all that map the file.
    ///
    /// # Errors
    /// Fails when the kernel refuses the program or a place.
    pub fn attach_usdt(
        &mut self,
        offsets: &[FileOffset],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        self.attach_at(USDT, offsets, file, pid)
    }

    /// The same for the program that is told of each Java object.
    ///
    /// # Errors
    /// See [`Object::attach_usdt`].
    pub fn attach_objects(
        &mut self,
        offsets: &[FileOffset],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        self.attach_at(OBJECTS, offsets, file, pid)
    }

    /// The same for a program that stops held threads.
    ///
    /// # Errors
    /// See [`Object::attach_usdt`].
    pub fn attach_stop(
        &mut self,
        program: &'static str,
        offset: FileOffset,
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        self.attach_at(program, &[offset], file, pid)
    }

    /// The same for a program that does nothing.
    ///
    /// # Errors
    /// See [`Object::attach_usdt`].
    pub fn attach_empty(
        &mut self,
        offsets: &[FileOffset],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        self.attach_at(EMPTY, offsets, file, pid)
    }

    fn attach_at(
        &mut self,
        name: &'static str,
        offsets: &[FileOffset],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        let places: Vec<_> = offsets
            .iter()
            .map(|offset| Place::new(None, offset.0))
            .collect();
        if let Some(multi) = &mut self.multi {
            let link = multi.attach(name, Moment::Entry, &places, file, pid)?;
            return Ok(vec![link]);
        }
        self.load_alone(name)?;
        places
            .iter()
            .map(|place| self.attach_loaded(name, place.offset, None, file, pid))
            .collect()
    }
}
