//! The uprobe programs: which one watches a function, and when.

use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::call::Function;

/// When a probe's program runs. In the order in which probes are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At the entry of `free`.
    Free,
    /// At the entry of a function by which a pool takes back its first argument.
    PoolFree1,
    /// The same of its second argument.
    PoolFree2,
    /// The same of its third argument.
    PoolFree3,
    /// At the entry of one that takes back a chain of objects.
    ChainFree,
    /// The same of objects that begin with the next one's address.
    ListFree,
    /// At the entry of one by which an arena lets all its objects go.
    ArenaEnd,
    /// At the return from a [`Function`], whose return address is replaced.
    Return,
    /// At a return instruction of a [`Function`], which it may share.
    End,
    /// At a jump by which a [`Function`] ends in one that returns its first
    /// argument.
    EndJump,
    /// At the entry of a [`Function`].
    Entry,
}

impl Moment {
    /// All, in order.
    #[cfg(test)]
    pub const ALL: [Self; 11] = [
        Self::Free,
        Self::PoolFree1,
        Self::PoolFree2,
        Self::PoolFree3,
        Self::ChainFree,
        Self::ListFree,
        Self::ArenaEnd,
        Self::Return,
        Self::End,
        Self::EndJump,
        Self::Entry,
    ];

    /// A program that does one thing at entries, and otherwise nothing.
    const fn only(self, entry: &'static str) -> &'static str {
        match self {
            Self::Entry => entry,
            Self::Return => "uf_empty_ret",
            _ => "uf_empty",
        }
    }

    /// The program for any function, which tells them apart by the probe's
    /// cookie; see [`Place::cookie`].
    const fn program(self) -> &'static str {
        match self {
            Self::Free => "uf_free_at",
            Self::PoolFree1 => "uf_pool_1_at",
            Self::PoolFree2 => "uf_pool_2_at",
            Self::PoolFree3 => "uf_pool_3_at",
            Self::ChainFree => "uf_chain_at",
            Self::ListFree => "uf_list_at",
            Self::ArenaEnd => "uf_arena_end_at",
            Self::End => "uf_end",
            Self::EndJump => "uf_end_jump",
            Self::Return => "uf_leave",
            Self::Entry => "uf_enter",
        }
    }

    /// The program for one function, without a cookie.
    const fn program_of(self, function: Option<Function>) -> &'static str {
        match self {
            Self::Free => return "uf_free",
            Self::PoolFree1 => return "uf_pool_1",
            Self::PoolFree2 => return "uf_pool_2",
            Self::PoolFree3 => return "uf_pool_3",
            Self::ChainFree => return "uf_chain",
            Self::ListFree => return "uf_list",
            Self::ArenaEnd => return "uf_arena_end",
            _ => {}
        }
        let Some(function) = function else {
            return self.program();
        };
        let (entry, leave) = match function {
            Function::Malloc => ("uf_malloc", "uf_malloc_ret"),
            Function::Calloc => ("uf_calloc", "uf_calloc_ret"),
            Function::Realloc => ("uf_realloc", "uf_realloc_ret"),
            Function::Reallocarray => ("uf_reallocarr", "uf_reallocarr_r"),
            Function::PosixMemalign => ("uf_posix_mem", "uf_posix_mem_r"),
            Function::AlignedAlloc => ("uf_aligned", "uf_aligned_ret"),
            Function::Memalign => ("uf_memalign", "uf_memalign_ret"),
            Function::Valloc => ("uf_valloc", "uf_valloc_ret"),
            Function::Pvalloc => ("uf_pvalloc", "uf_pvalloc_ret"),
            Function::Mmap => ("uf_mmap", "uf_mmap_ret"),
            Function::Munmap => ("uf_munmap", "uf_munmap_ret"),
            Function::Mremap => ("uf_mremap", "uf_mremap_ret"),
            // What may throw gets no return probe.
            Function::New => ("uf_new", "uf_empty_ret"),
            Function::NewCount => ("uf_new_count", "uf_empty_ret"),
            Function::NewRealloc => ("uf_new_realloc", "uf_empty_ret"),
            Function::Reallocf => ("uf_reallocf", "uf_reallocf_ret"),
            Function::Xallocx => ("uf_xallocx", "uf_xallocx_ret"),
            Function::RustRealloc => ("uf_rust", "uf_rust_ret"),
            Function::HeapCalloc => ("uf_heap_calloc", "uf_heap_callo_r"),
            Function::HeapRealloc => ("uf_heap_real", "uf_heap_real_r"),
            Function::HeapReallocarray => ("uf_heap_array", "uf_heap_array_r"),
            Function::ArenaAlloc => ("uf_arena_alloc", "uf_arena_all_r"),
            Function::ArenaString => ("uf_arena_str", "uf_arena_str_r"),
            Function::ArenaMake => ("uf_arena_make", "uf_arena_make_r"),
            Function::CarrierAlloc => ("uf_carrier", "uf_carrier_r"),
            Function::CarrierRealloc => ("uf_carrier_re", "uf_carrier_re_r"),
        };
        match self {
            Self::Return => leave,
            Self::Entry => entry,
            _ => self.program(),
        }
    }
}

/// Which programs are attached. All but the first are for benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Programs {
    /// Those that count.
    #[default]
    Counting,
    /// Empty ones, to learn what the kernel's traps cost alone.
    Empty,
    /// The same without those where calls end: what is least for who sees allocations
    /// and frees.
    Entries,
    /// At entries those that walk the stack.
    Walk,
    /// At entries those that have the kernel walk the stack.
    Stackid,
}

impl Programs {
    /// The program for any function; see [`Moment::program`].
    pub const fn at(self, moment: Moment) -> &'static str {
        match self {
            Self::Counting => moment.program(),
            Self::Empty | Self::Entries => moment.only("uf_empty"),
            Self::Walk => moment.only("uf_walk"),
            Self::Stackid => moment.only("uf_stackid"),
        }
    }

    /// Whether there are none at a moment.
    pub fn leave_out(self, moment: Moment) -> bool {
        self == Self::Entries && !matches!(moment, Moment::Free | Moment::Entry)
    }

    /// The program for one function; see [`Moment::program_of`].
    pub const fn of(self, moment: Moment, function: Option<Function>) -> &'static str {
        match self {
            Self::Counting => moment.program_of(function),
            _ => self.at(moment),
        }
    }
}

/// Where a USDT probe goes in a file, whose program may have a semaphore for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The instruction's offset in the file.
    pub offset: u64,
    /// The semaphore's; 0 if it has none.
    pub counter: u64,
    /// What the program is told of the place.
    pub cookie: u64,
}

/// Where a probe goes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The function there, where the moment asks for it: `None` is one that frees,
    /// or any function's end; and at [`Moment::Entry`], with a cookie, a probe that
    /// does nothing.
    pub function: Option<Function>,
    /// The instruction's offset in the file.
    pub offset: u64,
    /// Where the arguments of the call are there.
    pub arguments: Arguments,
    /// Whether no other probed function runs within a call of it.
    pub is_last: bool,
    /// Whether the kernel single-steps the instruction.
    pub is_stepped: bool,
}

impl Place {
    /// At a function's first instruction, or where no arguments are read.
    pub const fn new(function: Option<Function>, offset: u64) -> Self {
        Self {
            function,
            offset,
            arguments: Arguments::AT_ENTRY,
            is_last: false,
            is_stepped: false,
        }
    }

    /// What programs for any function read of a probe.
    pub fn cookie(&self) -> u64 {
        self.arguments
            .cookie(self.function, self.is_last, self.is_stepped)
    }
}
