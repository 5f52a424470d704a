//! The BPF programs: entry points only.
//!
//! Every program is short: it reads its arguments from the registers and
//! hands them to the subject's module.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the entry points' signatures are aya's"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "registers hold 32-bit values in their lower half, and usize has 64 bits here"
)]

mod allocation;
mod arena;
mod burst;
mod chosen;
mod code;
mod code_told;
mod cost;
mod cpython;
mod elsewhere;
mod entry;
mod fault;
mod handle;
mod hit;
mod hold;
mod hotspot;
mod inflight;
mod inherited;
mod javaheap;
mod lifecycle;
mod lookup;
mod mapped;
mod mapping;
mod maps;
mod pool;
mod read;
mod recall;
mod returned;
mod sampler;
mod script;
mod session;
mod started;
mod syscalls;
mod thrown;
mod unwind;

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_attach_cookie;
use aya_ebpf::macros::{fentry, fexit, raw_tracepoint, uprobe, uretprobe};
use aya_ebpf::maps::ProgramArray;
#[cfg(feature = "find_vma")]
use aya_ebpf::programs::TracePointContext;
use aya_ebpf::programs::tracing::StackIdContext;
use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
};
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::call::Function;
use tracer_ebpf::held;
use tracer_ebpf::hits::Kind;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::volatile::opaque;

use crate::syscalls::{Next, UserRegisters};

/// Asks for the stack of the program, not of the kernel.
const BPF_F_USER_STACK: u64 = 1 << 8;

/// Keeps a program on the stack of the task that runs it.
///
/// From 6.13 on the kernel gives functions of 64 bytes of stack and more one of
/// their own for each CPU, if no other run of the program can come between.
/// Under a kernel that preempts, that is not so for uprobes: another thread may
/// run the program on that CPU before this one goes on, and both write to the
/// same stack. Programs with a tail call have none of those stacks
/// (`check_max_stack_depth` in `kernel/bpf/verifier.c`). The verifier sees that
/// this one is never made, and takes it out afterwards.
#[inline(always)]
fn on_task_stack(context: &impl EbpfContext) {
    if opaque(0) != 0 {
        // SAFETY: never reached.
        unsafe { maps::TASK_STACK.tail_call(context, 0) };
    }
}

/// Defines the entry probe of a function, where there are no cookies. Names have at
/// most the 15 characters that the kernel keeps.
macro_rules! enters {
    ($enter:ident, $function:ident) => {
        #[uprobe]
        fn $enter(context: ProbeContext) -> u32 {
            on_task_stack(&context);
            entry::by_program(&context, Function::$function);
            0
        }
    };
}

/// Defines the entry and the return probe.
macro_rules! follows {
    ($enter:ident, $leave:ident, $function:ident) => {
        enters!($enter, $function);

        #[uretprobe]
        fn $leave(context: RetProbeContext) -> u32 {
            on_task_stack(&context);
            returned::at_probe(context.regs, Function::$function);
            0
        }
    };
}

follows!(uf_malloc, uf_malloc_ret, Malloc);
follows!(uf_calloc, uf_calloc_ret, Calloc);
follows!(uf_realloc, uf_realloc_ret, Realloc);
follows!(uf_reallocarr, uf_reallocarr_r, Reallocarray);
follows!(uf_posix_mem, uf_posix_mem_r, PosixMemalign);
follows!(uf_aligned, uf_aligned_ret, AlignedAlloc);
follows!(uf_memalign, uf_memalign_ret, Memalign);
follows!(uf_valloc, uf_valloc_ret, Valloc);
follows!(uf_pvalloc, uf_pvalloc_ret, Pvalloc);
follows!(uf_reallocf, uf_reallocf_ret, Reallocf);
follows!(uf_xallocx, uf_xallocx_ret, Xallocx);
follows!(uf_rust, uf_rust_ret, RustRealloc);
follows!(uf_heap_calloc, uf_heap_callo_r, HeapCalloc);
follows!(uf_heap_real, uf_heap_real_r, HeapRealloc);
follows!(uf_heap_array, uf_heap_array_r, HeapReallocarray);
follows!(uf_arena_alloc, uf_arena_all_r, ArenaAlloc);
follows!(uf_arena_str, uf_arena_str_r, ArenaString);
follows!(uf_arena_make, uf_arena_make_r, ArenaMake);
follows!(uf_carrier, uf_carrier_r, CarrierAlloc);
follows!(uf_carrier_re, uf_carrier_re_r, CarrierRealloc);
follows!(uf_mmap, uf_mmap_ret, Mmap);
follows!(uf_munmap, uf_munmap_ret, Munmap);
follows!(uf_mremap, uf_mremap_ret, Mremap);

// What may throw has no return probe.
enters!(uf_new, New);
enters!(uf_new_count, NewCount);
enters!(uf_new_realloc, NewRealloc);

/// Defines the entry probe of a function that frees, where there are no cookies, and
/// where its cookie says where the arguments are.
macro_rules! frees {
    ($free:ident, $free_at:ident, $freed:expr) => {
        #[uprobe]
        fn $free(context: ProbeContext) -> u32 {
            on_task_stack(&context);
            ($freed)(&context, Arguments::AT_ENTRY, 0);
            0
        }

        #[uprobe]
        fn $free_at(context: ProbeContext) -> u32 {
            on_task_stack(&context);
            let cookie = cookie(&context);
            let is_stepped = Arguments::is_stepped(cookie);
            ($freed)(&context, Arguments::of_cookie(cookie), is_stepped);
            0
        }
    };
}

frees!(uf_free, uf_free_at, allocation::free);
// An object, or a chain of them, is given back to a pool.
frees!(uf_pool_1, uf_pool_1_at, pool::free::<0>);
frees!(uf_pool_2, uf_pool_2_at, pool::free::<1>);
frees!(uf_pool_3, uf_pool_3_at, pool::free::<2>);
frees!(uf_chain, uf_chain_at, pool::free_chain);
frees!(uf_list, uf_list_at, pool::free_list);
// An arena lets all objects go.
frees!(uf_arena_end, uf_arena_end_at, arena::ended);

/// The probe's attach cookie: a function, and where its arguments are.
#[inline(always)]
fn cookie(context: &impl EbpfContext) -> u64 {
    // SAFETY: the helper reads the context of the running program.
    unsafe { bpf_get_attach_cookie(context.as_ptr()) }
}

/// The entry of any function but `free`, where the kernel has cookies: one
/// program at many places, told apart by the cookie.
#[uprobe]
fn uf_enter(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    entry::by_cookie(&context, cookie(&context));
    0
}

/// What is left to do of an entry, after any of the programs for one function.
#[uprobe]
fn uf_site(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    entry::last(&context);
    0
}

/// The entry of any function but `free`, and its return: the program of session links.
/// What it returns tells the kernel whether the return is wanted, which aya's macro
/// does not let through.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn uf_session(context: *mut c_void) -> u32 {
    let context = ProbeContext::new(context);
    on_task_stack(&context);
    session::hit(&context)
}

/// The return from any function but `free`, where the kernel has cookies.
#[uretprobe]
fn uf_leave(context: RetProbeContext) -> u32 {
    on_task_stack(&context);
    if let Some(function) = Arguments::function(cookie(&context)) {
        returned::at_probe(context.regs, function);
    }
    0
}

/// A return instruction of any function but `free`.
#[uprobe]
fn uf_end(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    // SAFETY: the context's registers.
    let result = unsafe { (*context.regs).rax };
    returned::at_instruction(context.regs, result, Kind::End);
    0
}

/// A jump by which such a function ends in one that returns its first
/// argument.
#[uprobe]
fn uf_end_jump(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    // SAFETY: the context's registers.
    let result = unsafe { (*context.regs).rdi };
    returned::at_instruction(context.regs, result, Kind::JumpEnd);
    0
}

/// A USDT probe, at any of its places.
#[uprobe]
fn uf_usdt(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    hit::hit(&context);
    0
}

/// Where a process's own sampler tells of an allocation.
#[uprobe]
fn uf_sampled_at(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    sampler::allocated(&context, Some(cookie(&context)));
    0
}

/// The same where there are no cookies.
#[uprobe]
fn uf_sampled(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    sampler::allocated(&context, None);
    0
}

/// Where it tells that a sample was freed.
#[uprobe]
fn uf_unsampled_at(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    sampler::freed(&context, Some(cookie(&context)));
    0
}

/// The same where there are no cookies.
#[uprobe]
fn uf_unsampled(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    sampler::freed(&context, None);
    0
}

/// An empty probe: the floor that benchmarks and calibration measure.
#[uprobe]
fn uf_empty(_context: ProbeContext) -> u32 {
    0
}

/// An empty return probe.
#[uretprobe]
fn uf_empty_ret(_context: RetProbeContext) -> u32 {
    0
}

/// Walks the stack and does nothing else, for benchmarks.
#[uprobe]
fn uf_walk(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    if let Some(thread) = inflight::thread() {
        let place = unwind::Place::Entry(Arguments::AT_ENTRY);
        // SAFETY: the context's registers and the thread's own record.
        unsafe { unwind::capture(context.regs, place, 0, thread) };
    }
    0
}

/// Has the kernel walk the stack and does nothing else, for benchmarks.
#[uprobe]
fn uf_stackid(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    if maps::is_active() {
        // What is returned, and that it may be an error, is of no interest.
        let _ = context.get_stackid(&maps::KERNEL_STACKS, BPF_F_USER_STACK);
    }
    0
}

/// Where a JVM has allocated a Java object the slow way.
#[uprobe]
fn uf_java_object(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    javaheap::sample(&context);
    0
}

/// Where a JVM tells of every Java object that it allocates.
#[uprobe]
fn uf_java_new(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    javaheap::object(&context);
    0
}

/// Where a JVM makes a global handle for native code.
#[uprobe]
fn uf_new_handle(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    handle::enter(&context);
    0
}

#[uretprobe]
fn uf_new_handle_r(context: RetProbeContext) -> u32 {
    on_task_stack(&context);
    // SAFETY: the context's registers.
    let (made, stack) = unsafe { ((*context.regs).rax, (*context.regs).rsp) };
    handle::leave(made, stack);
    0
}

/// The same, at a return instruction: the return address is still there.
#[uprobe]
fn uf_handle_end(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    // SAFETY: the context's registers.
    let (made, stack) = unsafe { ((*context.regs).rax, (*context.regs).rsp) };
    handle::leave(made, stack.wrapping_add(8));
    0
}

/// Where it deletes one.
#[uprobe]
fn uf_del_handle(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    handle::delete(&context);
    0
}

/// Where a JVM starts a Java thread.
#[uprobe]
fn uf_thread(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    started::enter(&context);
    0
}

#[uretprobe]
fn uf_thread_ret(context: RetProbeContext) -> u32 {
    on_task_stack(&context);
    // SAFETY: the context's registers.
    started::leave(unsafe { (*context.regs).rsp });
    0
}

/// The same, at a return instruction.
#[uprobe]
fn uf_thread_end(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    // SAFETY: the context's registers.
    started::leave(unsafe { (*context.regs).rsp }.wrapping_add(8));
    0
}

/// Where a JVM frees code.
#[uprobe]
fn uf_code_freed(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    hotspot::code_freed(&context);
    0
}

/// Where a loader tells debuggers that it has mapped libraries.
#[uprobe]
fn uf_loaded(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    hold::stop(held::LOADED);
    0
}

/// Where libc calls ptrace(2).
#[uprobe]
fn uf_ptrace(context: ProbeContext) -> u32 {
    on_task_stack(&context);
    hold::stop(held::PTRACE);
    0
}

#[raw_tracepoint]
fn uf_newtask(context: RawTracePointContext) -> i32 {
    lifecycle::new_task(&context);
    0
}

#[raw_tracepoint]
fn uf_exec(context: RawTracePointContext) -> i32 {
    lifecycle::exec(&context);
    0
}

/// On `sched_prepare_exec` and `sched_process_exit`, where probes may miss
/// `vfork` children.
#[raw_tracepoint]
fn uf_leave_mem(_context: RawTracePointContext) -> i32 {
    lifecycle::leave_memory();
    0
}

/// Before [`uf_exit`], and not in it: while the kernel has preempted a program, the
/// same one is left out for another thread. So those that many threads run one after
/// the other are short.
#[raw_tracepoint]
fn uf_ended(_context: RawTracePointContext) -> i32 {
    started::ended();
    0
}

#[raw_tracepoint]
fn uf_exit(_context: RawTracePointContext) -> i32 {
    lifecycle::exit();
    0
}

#[raw_tracepoint]
fn uf_unmapped(context: RawTracePointContext) -> i32 {
    code::unmapped_area(&context);
    0
}

/// A thread touched a page that was not in memory, or that it must not write to yet.
#[raw_tracepoint]
fn uf_user_fault(context: RawTracePointContext) -> i32 {
    fault::by_user(&context);
    0
}

/// The kernel did, for a thread.
#[raw_tracepoint]
fn uf_kernel_fault(context: RawTracePointContext) -> i32 {
    fault::by_kernel(&context);
    0
}

/// The kernel chose where pages go that `mremap` moves.
#[raw_tracepoint]
fn uf_pages_move(context: RawTracePointContext) -> i32 {
    fault::moves(&context);
    0
}

/// Defines a program at the entry of a system call in the kernel, or at its return.
macro_rules! system_call {
    ($name:ident, enters, $entered:expr) => {
        #[fentry]
        fn $name(context: FEntryContext) -> i32 {
            ($entered)(&UserRegisters(context.arg(0)));
            0
        }
    };
    ($name:ident, returns, $returned:expr) => {
        #[fexit]
        fn $name(context: FExitContext) -> i32 {
            ($returned)(&UserRegisters(context.arg(0)), context.arg(1));
            0
        }
    };
}

/// The same of one that may have something left to do, twice. The kernel lets it go on
/// only with a program for a function of the same type; and as it compares types, names
/// of parameters count, of which these functions have two.
macro_rules! goes_on {
    ($name:ident, $other:ident, starts_thread) => {
        goes_on!(fentry, $name, FEntryContext, |_| syscalls::made(), ENTERED);
        goes_on!(
            fentry,
            $other,
            FEntryContext,
            |_| syscalls::made(),
            ENTERED_2
        );
    };
    ($name:ident, $other:ident, maps) => {
        goes_on!(fexit, $name, FExitContext, |_| syscalls::made(), RETURNED);
        goes_on!(
            fexit,
            $other,
            FExitContext,
            |_| syscalls::made(),
            RETURNED_2
        );
    };
    ($name:ident, $other:ident, commits) => {
        goes_on!(fexit, $name, FExitContext, committed, RETURNED);
        goes_on!(fexit, $other, FExitContext, committed, RETURNED_2);
    };
    ($at:ident, $name:ident, $context:ident, $next:expr, $programs:ident) => {
        #[$at]
        fn $name(context: $context) -> i32 {
            go_on(&context, ($next)(&context), &maps::$programs);
            0
        }
    };
}

/// Defines the programs that those go on with.
macro_rules! rest {
    ($at_entry:ident, $at_return:ident) => {
        #[fentry]
        fn $at_entry(context: FEntryContext) -> i32 {
            syscalls::rest_at_entry(&UserRegisters(context.arg(0)));
            0
        }

        #[fexit]
        fn $at_return(context: FExitContext) -> i32 {
            syscalls::rest_at_return(&UserRegisters(context.arg(0)), context.arg(1));
            0
        }
    };
}

system_call!(uf_munmap_e, enters, syscalls::munmap_entered);
system_call!(uf_munmap_x, returns, syscalls::munmap_returned);
system_call!(uf_mremap_e, enters, syscalls::mremap_entered);
system_call!(uf_brk_e, enters, syscalls::brk_entered);
system_call!(uf_shmdt_e, enters, syscalls::shmdt_entered);
system_call!(uf_shmdt_x, returns, syscalls::munmap_returned);
goes_on!(uf_mmap_x, uf_mmap_x2, maps);
goes_on!(uf_mremap_x, uf_mremap_x2, maps);
goes_on!(uf_brk_x, uf_brk_x2, maps);
goes_on!(uf_shmat_x, uf_shmat_x2, maps);
goes_on!(uf_mprotect_x, uf_mprotect_x2, commits);
goes_on!(uf_pkey_x, uf_pkey_x2, commits);
goes_on!(uf_clone_e, uf_clone_e2, starts_thread);
goes_on!(uf_clone3_e, uf_clone3_e2, starts_thread);
rest!(uf_call_e, uf_call_x);
rest!(uf_call_e2, uf_call_x2);

#[inline(always)]
fn committed(context: &FExitContext) -> Next {
    syscalls::mprotect_returned(&UserRegisters(context.arg(0)), context.arg(1))
}

/// Goes on with the program that finds the site of a system call, if there is something
/// left to do.
#[inline(always)]
fn go_on(context: &impl EbpfContext, next: Next, programs: &ProgramArray) {
    if next == Next::Rest {
        // SAFETY: a program of the same type, which takes the same context.
        unsafe { programs.tail_call(context, 0) };
        // Only if there is no such program: the call is in no number.
        maps::lose(LossCause::MapBusy, 1, 0);
    }
}

/// Any system call of any process, where programs cannot be at the kernel's own
/// functions.
#[raw_tracepoint]
fn uf_sys_enter(context: RawTracePointContext) -> i32 {
    let next = syscalls::entered(&UserRegisters(context.arg(0)), context.arg(1));
    go_on(&context, next, &maps::PASSED);
    0
}

#[raw_tracepoint]
fn uf_sys_exit(context: RawTracePointContext) -> i32 {
    let next = syscalls::returned(&UserRegisters(context.arg(0)), context.arg(1));
    go_on(&context, next, &maps::PASSED);
    0
}

/// What is left to do at either of them.
#[raw_tracepoint]
fn uf_sys_rest(context: RawTracePointContext) -> i32 {
    syscalls::rest(&UserRegisters(context.arg(0)), context.arg(1));
    0
}

/// Has the kernel go on and tell others of the event, who may have perf events there.
#[cfg(feature = "find_vma")]
const TELL_OTHERS: u32 = 1;

/// Defines a program at the trace event of a system call. What it returns is for the
/// kernel, which aya's macro does not let through. Number and result are taken from the
/// registers: where they are in what an event hands over is not the same on all kernels.
#[cfg(feature = "find_vma")]
macro_rules! at_event {
    ($(#[$about:meta])* $name:ident, $happened:expr) => {
        $(#[$about])*
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "tracepoint")]
        extern "C" fn $name(context: *mut c_void) -> u32 {
            let next = ($happened)(&UserRegisters::of_current());
            go_on(&TracePointContext::new(context), next, &maps::PASSED_ONE);
            TELL_OTHERS
        }
    };
}

#[cfg(feature = "find_vma")]
at_event!(
    /// One of the system calls that are looked at, of any process.
    uf_one_enter,
    |call: &UserRegisters| syscalls::entered(call, call.number())
);
#[cfg(feature = "find_vma")]
at_event!(uf_one_exit, |call: &UserRegisters| syscalls::returned(
    call,
    call.result()
));
#[cfg(feature = "find_vma")]
at_event!(
    /// What is left to do at either of them.
    uf_one_rest,
    |call: &UserRegisters| {
        syscalls::rest(call, call.result());
        Next::Nothing
    }
);

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier accepts no panic, so none can be reached.
    loop {}
}

/// The kernel lends some helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
