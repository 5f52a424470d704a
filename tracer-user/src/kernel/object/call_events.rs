//! The programs at system calls where they cannot be at the kernel's own functions: at a
//! trace event of each call, or at the tracepoints that all calls pass.

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use aya::programs::{RawTracePoint, TracePoint};

use super::system_calls::SYSTEM_CALLS;
use super::{Object, program};
use crate::kernel::btf;
use crate::kernel::tracefs::TraceFs;
use crate::kernel::tracepoints::Tracepoints;

/// The group of the events.
const GROUP: &str = "syscalls";

/// The programs at events, when a call is entered and when it returns.
const AT_EVENTS: [&str; 2] = ["uf_one_enter", "uf_one_exit"];

/// The program that they go on with, and its map.
const REST_AT_EVENTS: [&str; 2] = ["uf_one_rest", "PASSED_ONE"];

/// The program that those at tracepoints go on with, and its map.
const REST: [&str; 2] = ["uf_sys_rest", "PASSED"];

impl Object {
    /// At a trace event of each call: the kernel goes through its list of these at every
    /// system call of every process, but runs a program at these calls alone.
    /// Tests that force this road (`is_forced`) make no calls of x32, so they may take it
    /// where the kernel serves these.
    pub(super) fn attach_to_events(&mut self, is_forced: bool) -> Result<()> {
        ensure!(
            btf::has_find_vma()? && btf::counts_left_out()?,
            "this kernel does not count the programs that it leaves out there"
        );
        ensure!(
            is_forced || !btf::has_x32()?,
            "this kernel serves calls of x32, which it does not tell of there"
        );
        let [rest, map] = REST_AT_EVENTS;
        for name in AT_EVENTS.into_iter().chain([rest]) {
            self.load_event_program(name)?;
        }
        let rest: &mut TracePoint = program(&mut self.ebpf, rest)?;
        let rest = rest.fd()?.try_clone()?;
        self.chain(map, &rest)?;
        let (events, mut attached) = (TraceFs::open()?, Tracepoints::new()?);
        for call in &SYSTEM_CALLS {
            let event = call.event().context("a system call without a name")?;
            let name = AT_EVENTS[usize::from(call.at_return)];
            let program: &mut TracePoint = program(&mut self.ebpf, name)?;
            attached
                .attach(program.fd()?.as_fd(), events.event(GROUP, &event)?)
                .with_context(|| format!("cannot attach to {event}"))?;
        }
        self.call_events = Some(attached);
        Ok(())
    }

    fn load_event_program(&mut self, name: &str) -> Result<()> {
        let program: &mut TracePoint = program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program
                .load()
                .with_context(|| format!("the kernel refused the BPF program {name}"))?;
        }
        Ok(())
    }

    /// At tracepoints that every system call of every process passes.
    pub(super) fn attach_to_tracepoints(&mut self) -> Result<()> {
        let [rest, map] = REST;
        self.load_tracepoint(rest)?;
        let program: &mut RawTracePoint = program(&mut self.ebpf, rest)?;
        let loaded = program.fd()?.try_clone()?;
        self.chain(map, &loaded)?;
        self.attach_tracepoint("uf_sys_exit", "sys_exit")?;
        self.attach_tracepoint("uf_sys_enter", "sys_enter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::{OBJECT, OBJECT_FIND_VMA};

    #[test]
    fn the_objects_have_their_programs() {
        let [older, newer] =
            [OBJECT, OBJECT_FIND_VMA].map(|object| aya_obj::Object::parse(object).unwrap());
        for object in [&older, &newer] {
            assert!(object.programs.contains_key(REST[0]));
            assert!(object.maps.contains_key(REST[1]));
        }
        let [rest, map] = REST_AT_EVENTS;
        assert!(newer.maps.contains_key(map) && !older.maps.contains_key(map));
        for name in AT_EVENTS.into_iter().chain([rest]) {
            assert!(newer.programs.contains_key(name), "{name}");
            assert!(name.len() <= 15, "{name} is cut by the kernel");
        }
    }
}
