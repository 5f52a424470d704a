//! The programs that are told of page faults, which may come and go during a run.

use anyhow::{Context, Result};
use aya::programs::RawTracePoint;
use aya::programs::raw_trace_point::RawTracePointLink;

use super::{Object, program};

/// Programs at tracepoints of page faults, and the names of these.
const FAULTS: [(&str, &str); 2] = [
    ("uf_kernel_fault", "page_fault_kernel"),
    ("uf_user_fault", "page_fault_user"),
];

/// The programs that are in place. Dropping them takes them away, which keeps nobody
/// waiting.
#[derive(Debug, Default)]
pub struct FaultLinks(#[expect(dead_code, reason = "held, to be dropped")] Vec<RawTracePointLink>);

impl Object {
    /// Attaches the program that is told of pages that are moved.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn attach_moves(&mut self) -> Result<()> {
        self.attach_tracepoint("uf_pages_move", "vm_unmapped_area")
    }

    /// Attaches the programs that are told of page faults.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn attach_faults(&mut self) -> Result<FaultLinks> {
        let mut links = Vec::new();
        for (name, tracepoint) in FAULTS {
            self.load_tracepoint(name)?;
            let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            let link = program
                .attach(tracepoint)
                .with_context(|| format!("cannot attach to {tracepoint}"))?;
            links.push(program.take_link(link)?);
        }
        Ok(FaultLinks(links))
    }
}
