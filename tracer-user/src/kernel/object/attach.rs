//! Loading programs, and attaching them.

use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use aya::programs::{RawTracePoint, UProbe};
use tracer_ebpf::call::Function;

use super::{Object, program};
use crate::kernel::counted;
use crate::kernel::link::{Link, cookies};
use crate::kernel::program::{Counted, Moment, Place};
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

    pub(super) fn attach_tracepoint(&mut self, name: &str, tracepoint: &str) -> Result<()> {
        self.load_tracepoint(name)?;
        let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
        program
            .attach(tracepoint)
            .with_context(|| format!("cannot attach to {tracepoint}"))?;
        Ok(())
    }

    pub(super) fn load_tracepoint(&mut self, name: &str) -> Result<()> {
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

    /// Attaches the program that a sampler's `alloc` is told by, or its `free`, to places
    /// of a file, in one process or (with `None`) in all that map the file.
    ///
    /// # Errors
    /// See [`Object::attach_usdt`].
    pub fn attach_sampler(
        &mut self,
        is_free: bool,
        places: &[Counted],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        let name = match (is_free, cookies()) {
            (false, true) => "uf_sampled_at",
            (false, false) => "uf_sampled",
            (true, true) => "uf_unsampled_at",
            (true, false) => "uf_unsampled",
        };
        self.attach_counted(name, places, file, pid)
    }

    /// The same for a program that does nothing.
    ///
    /// # Errors
    /// See [`Object::attach_usdt`].
    pub fn attach_empty_counted(
        &mut self,
        places: &[Counted],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        self.attach_counted(EMPTY, places, file, pid)
    }

    fn attach_counted(
        &mut self,
        name: &'static str,
        places: &[Counted],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        if let Some(multi) = &mut self.multi {
            let link = multi.attach_counted(name, Moment::Entry, places, file, pid)?;
            return Ok(vec![link]);
        }
        self.load_alone(name)?;
        let program: &mut UProbe = program(&mut self.ebpf, name)?;
        let program = program.fd()?.as_fd();
        let attach = |place| {
            with(EVENT, || {
                counted::attach(program, place, file, pid, cookies())
            })
        };
        places.iter().map(attach).collect()
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
