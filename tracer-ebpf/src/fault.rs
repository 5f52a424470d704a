//! Growth without probes: where a process touches pages that are not in memory.
//!
//! The kernel tells of each page fault before it brings the page in. The page is noted
//! as that of the stack that touched it. What comes in without a fault of its own
//! (neighbours, pages that are asked for ahead), what leaves memory, and what a fault
//! was not about a page at all, user space learns from the page map.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::programs::RawTracePointContext;
use tracer_ebpf::block::{self, Block, BlockKey, PAGE};
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::hits::Kind;
use tracer_ebpf::site::NO_SITE;

use crate::burst;
use crate::code::MAX_ADDRESS;
use crate::cost;
use crate::inflight::{self, now};
use crate::maps::{self, LIVE, PROCESSES};
use crate::read::kernel_or_zero;
use crate::syscalls::{self, UserRegisters, number};

/// In a fault's error code: the page is there, and it is the access that is not allowed
/// (`X86_PF_PROT` in the kernel's `trap_pf.h`).
const PROTECTION: u64 = 1;

/// No address of user space has one of these bits.
const KERNEL: u64 = 0xff << 56;

/// `page_fault_user(address, regs, error_code)`.
#[inline(always)]
pub(crate) fn by_user(context: &RawTracePointContext) {
    if burst::passes_faults_over() {
        return;
    }
    let registers = UserRegisters(context.arg(1));
    touched(context.arg(0), &registers, context.arg(2), syscalls::TOUCH);
}

/// `page_fault_kernel(address, regs, error_code)`: the kernel copies something for a
/// thread, whose own registers it has saved.
#[inline(always)]
pub(crate) fn by_kernel(context: &RawTracePointContext) {
    let address: u64 = context.arg(0);
    if address & KERNEL != 0 || burst::passes_faults_over() {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    // A read that gives up instead, such as a program's own. To read the count, the
    // kernel raises it by one.
    if kernel_or_zero::<u32>(task + u64::from(maps::setting!(task_no_faults))) > 1 {
        return;
    }
    let registers = UserRegisters(saved_registers(task));
    touched(address, &registers, context.arg(2), syscalls::TOUCH_WITHIN);
}

/// Where the kernel has the registers with which the current thread came into it.
#[cfg(feature = "find_vma")]
#[inline(always)]
fn saved_registers(_task: u64) -> u64 {
    use aya_ebpf::bindings::task_struct;
    use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
    // SAFETY: the current task.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf().cast::<task_struct>()).cast_unsigned() }
}

/// The same before there was a helper: at the top of its stack in the kernel, of four
/// pages (`task_pt_regs`, `THREAD_SIZE`).
#[cfg(not(feature = "find_vma"))]
#[inline(always)]
fn saved_registers(task: u64) -> u64 {
    use aya_ebpf::bindings::pt_regs;
    const STACK: u64 = 4 * PAGE;
    let stack = kernel_or_zero::<u64>(task + u64::from(maps::setting!(task_stack)));
    stack + STACK - size_of::<pt_regs>() as u64
}

/// A thread touches a page, or the kernel does for it.
#[inline(always)]
fn touched(address: u64, registers: &UserRegisters, error: u64, place: u32) {
    if address & KERNEL != 0 {
        return;
    }
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the current thread's record.
    unsafe { cost::hit(thread, Kind::Fault) };
    if error & PROTECTION == 0 || is_first_write(address) != 0 {
        let site = syscalls::any_site(registers, PAGE, place);
        if site != NO_SITE {
            note(address, site);
        }
    }
    // SAFETY: the current thread's record.
    unsafe { cost::done(thread) };
}

/// The key of the current thread's page with an address.
#[inline(always)]
fn key_of(address: u64) -> Option<BlockKey> {
    let thread = inflight::record()?;
    Some(BlockKey {
        address: block::page(address),
        // SAFETY: the current thread's record.
        image: unsafe { (*thread).image },
    })
}

/// Whether a page that is there may come into memory now: the page of zeros is in no
/// account, and is replaced when it is written to. In a copy of another process most
/// are pages that both have. Verified once, on its own, as is what follows: some
/// verifiers count the stacks of all that may be called together.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_first_write(address: u64) -> u64 {
    let Some(key) = key_of(address) else {
        return 0;
    };
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(process) = PROCESSES.get_ptr(pid) else {
        return 0;
    };
    // SAFETY: a live map value.
    let is_copy = unsafe { (*process).ancestors[0].image != 0 };
    u64::from(!is_copy && LIVE.get_ptr(key).is_none())
}

/// Notes a page as that of a site, and of no other.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note(address: u64, site: u32) -> u64 {
    let Some(key) = key_of(address) else {
        return 0;
    };
    // One that was there before was given back meanwhile.
    inflight::count_gone(key);
    let block = Block {
        size: PAGE,
        time: now(),
        site,
        certain: 0,
    };
    inflight::count_made(key, &block);
    0
}

/// `vm_unmapped_area(address, info)`: the kernel chose where new memory goes. Within
/// `mremap` that is where pages are moved to.
#[inline(always)]
pub(crate) fn moves(context: &RawTracePointContext) {
    let address: u64 = context.arg(0);
    if !maps::is_active() || address > MAX_ADDRESS {
        return;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(process) = maps::process((pid_tgid >> 32) as u32) else {
        return;
    };
    // SAFETY: the helper has no preconditions.
    let call = UserRegisters(saved_registers(unsafe { bpf_get_current_task() }));
    if call.number() != number::MREMAP {
        return;
    }
    maps::send(&Event {
        address: call.argument(0),
        length: call.argument(1),
        other: address,
        ..Event::new(EventKind::PagesMove, pid_tgid as u32, process.image, now())
    });
}
