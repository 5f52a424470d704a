//! Excerpts of real functions, and code that no probe may stand behind.

use std::path::Path;

use super::*;
use crate::attach::allocator;
use crate::process::file::ModuleFiles;

/// Debian 12, glibc 2.36: `push %rbp; push %rbx; sub $8,%rsp; …`
const MALLOC_DEBIAN: &[u8] = &[0x55, 0x53, 0x48, 0x83, 0xec, 0x08];
/// Debian 12, glibc 2.36: `test %rdi,%rdi; je +0xb0; push %rbp`
const FREE_DEBIAN: &[u8] = &[
    0x48, 0x85, 0xff, 0x0f, 0x84, 0xb0, 0x00, 0x00, 0x00, 0x55, 0x48, 0x89, 0xe5,
];
/// Ubuntu 22.04, glibc 2.35 with CET: `endbr64; test %rdi,%rdi; je; push %rbp`
const FREE_UBUNTU: &[u8] = &[
    0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff, 0x0f, 0x84, 0xbb, 0x00, 0x00, 0x00, 0x55,
];
/// Ubuntu 22.04 with CET: `endbr64; push %r12`
const MALLOC_UBUNTU: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x54, 0x55];
/// glibc's `munmap`: `mov $0xb,%eax; syscall; cmp $-4095,%rax; jae; ret`
const MUNMAP: &[u8] = &[
    0xb8, 0x0b, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0x73, 0x01, 0xc3,
];
/// musl's `malloc` thunk: `jmp`
const MALLOC_MUSL: &[u8] = &[0xe9, 0x10, 0x00, 0x00, 0x00];
/// jemalloc's `malloc`: `push %rbp; mov %rsp,%rbp`
const MALLOC_JEMALLOC: &[u8] = &[0x55, 0x48, 0x89, 0xe5];
/// jemalloc's `free`: `test %rdi,%rdi; je; mov %fs:…,%rax`
const FREE_JEMALLOC: &[u8] = &[
    0x48, 0x85, 0xff, 0x74, 0x20, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0,
];
/// `sub $0x18,%rsp; push %rbx`: the stack moved before the push
const MOVES_STACK: &[u8] = &[0x48, 0x83, 0xec, 0x18, 0x53];
/// `mov %rdi,%rax; mov %rsi,%rdi; push %rbx`: an argument is gone
const MOVES_ARGUMENT: &[u8] = &[0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x53];
/// `mov %fs:0x10,%rax; test %rax,%rax; jne; …` as tcmalloc's `free` does
const FREE_TCMALLOC: &[u8] = &[
    0x64, 0x48, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0, 0x48, 0x85, 0xc0, 0x75, 0x05,
];

/// Debian 12, jemalloc 5.3's `free`: `mov %rdi,%rax; mov …(%rip),%rdx;
/// mov %rdi,%rcx; shr; and; and; add %fs:0,%rax; add; cmp …(%rax),%rcx; jne`
const FREE_JEMALLOC_5_3: &[u8] = &[
    0x48, 0x89, 0xf8, 0x48, 0x8b, 0x15, 0x0e, 0x53, 0x0a, 0x00, 0x48, 0x89, 0xf9, 0x48, 0xc1, 0xe8,
    0x1a, 0x48, 0x81, 0xe1, 0x00, 0x00, 0x00, 0xc0, 0x25, 0xf0, 0x00, 0x00, 0x00, 0x64, 0x48, 0x03,
    0x04, 0x25, 0x00, 0x00, 0x00, 0x00, 0x48, 0x01, 0xd0, 0x48, 0x3b, 0x88, 0xb0, 0x01, 0x00, 0x00,
    0x0f, 0x85, 0x8a, 0x00, 0x00, 0x00,
];
/// Debian 12, gperftools 2.10's `memalign`: `mov %rdi,%r8; cmp $8192,%rdi; ja`
const MEMALIGN_TCMALLOC: &[u8] = &[
    0x49, 0x89, 0xf8, 0x48, 0x81, 0xff, 0x00, 0x20, 0x00, 0x00, 0x0f, 0x87, 0xe8, 0x00, 0x00, 0x00,
];
/// Debian 12, mimalloc 2.0's `malloc`: `mov …(%rip),%rax; mov %rdi,%rsi;
/// mov %fs:(%rax),%rdi; cmp $1024,%rsi; ja`
const MALLOC_MIMALLOC: &[u8] = &[
    0x48, 0x8b, 0x05, 0x49, 0xb4, 0x00, 0x00, 0x48, 0x89, 0xfe, 0x64, 0x48, 0x8b, 0x38, 0x48, 0x81,
    0xfe, 0x00, 0x04, 0x00, 0x00, 0x77, 0x29,
];
/// Its `calloc`: `mov …(%rip),%rdx; mov %rdi,%rax; mov %fs:(%rdx),%rdi;
/// cmp $1,%rax; je`
const CALLOC_MIMALLOC: &[u8] = &[
    0x48, 0x8b, 0x15, 0xc9, 0xad, 0x00, 0x00, 0x48, 0x89, 0xf8, 0x64, 0x48, 0x8b, 0x3a, 0x48, 0x83,
    0xf8, 0x01, 0x74, 0x08,
];
/// Its `realloc`: `mov …(%rip),%rax; mov %rsi,%rdx; mov %rdi,%rsi;
/// mov %fs:(%rax),%rax; mov %rax,%rdi; jmp mi_heap_realloc`
const REALLOC_MIMALLOC: &[u8] = &[
    0x48, 0x8b, 0x05, 0x49, 0xa9, 0x00, 0x00, 0x48, 0x89, 0xf2, 0x48, 0x89, 0xfe, 0x64, 0x48, 0x8b,
    0x00, 0x48, 0x89, 0xc7, 0xe9, 0xf7, 0x4e, 0xff, 0xff,
];
/// Debian 12, glibc 2.36's `mremap`: `sub $0x58,%rsp; mov %r8,0x40(%rsp);
/// mov %fs:0x28,%rax; mov %rax,0x18(%rsp); xor %eax,%eax; cmp $7,%ecx; ja`
const MREMAP_DEBIAN: &[u8] = &[
    0x48, 0x83, 0xec, 0x58, 0x4c, 0x89, 0x44, 0x24, 0x40, 0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0x00,
    0x00, 0x00, 0x48, 0x89, 0x44, 0x24, 0x18, 0x31, 0xc0, 0x83, 0xf9, 0x07, 0x77, 0x5a,
];

/// One argument, and no return probe.
const FREES: Needs<'static> = Needs::of_free(&[0], true);
/// Two arguments, and a return probe.
const CALLOCS: Needs<'static> = Needs {
    arguments: &[0, 1],
    fixed_stack: true,
    cookies: true,
};

fn spots(code: &[u8], needs: Needs<'_>) -> Vec<(u64, Step)> {
    let placement = place(code, needs);
    let spots = placement.spots();
    spots.map(|spot| (spot.displacement, spot.step)).collect()
}

/// The only place.
fn only(code: &[u8], needs: Needs<'_>) -> Spot {
    let placement = place(code, needs);
    assert!(placement.others.is_empty(), "{placement}");
    placement.first
}

fn displacement(code: &[u8]) -> (u64, Step) {
    let spot = only(code, FREES);
    (spot.displacement, spot.step)
}

fn register(word: u8) -> Place {
    Place::Register(operand::Register::from_word(word).unwrap())
}

/// Words of `pt_regs`.
const RAX: u8 = 10;
const RDX: u8 = 12;
const RSI: u8 = 13;

#[test]
fn an_emulated_first_instruction_stays() {
    assert_eq!(displacement(MALLOC_DEBIAN), (0, Step::Emulated));
    assert_eq!(displacement(MALLOC_MUSL), (0, Step::Emulated));
    assert_eq!(displacement(MALLOC_JEMALLOC), (0, Step::Emulated));
}

#[test]
fn tests_and_landing_pads_are_stepped_over() {
    assert_eq!(displacement(FREE_DEBIAN), (3, Step::Emulated));
    assert_eq!(displacement(FREE_UBUNTU), (7, Step::Emulated));
    assert_eq!(displacement(MALLOC_UBUNTU), (4, Step::Emulated));
    assert_eq!(displacement(FREE_JEMALLOC), (3, Step::Emulated));
    assert_eq!(displacement(FREE_TCMALLOC), (12, Step::Emulated));
}

#[test]
fn a_system_call_is_never_stepped_over() {
    assert_eq!(displacement(MUNMAP), (0, Step::OutOfLine));
}

#[test]
fn registers_that_carry_no_argument_of_the_function_are_scratch() {
    assert_eq!(displacement(FREE_JEMALLOC_5_3), (48, Step::Emulated));
    // Where more are read, they are not.
    let needs = Needs {
        arguments: &[0, 2],
        ..FREES
    };
    assert_eq!(spots(FREE_JEMALLOC_5_3, needs), [(0, Step::OutOfLine)]);
}

#[test]
fn an_argument_is_followed_to_another_register() {
    let memalign = Needs {
        arguments: &[1],
        ..CALLOCS
    };
    let spot = only(MEMALIGN_TCMALLOC, memalign);
    assert_eq!(
        (spot.displacement, spot.arguments.place(1)),
        (10, Place::Own)
    );
    let malloc = Needs {
        arguments: &[0],
        ..CALLOCS
    };
    let spot = only(MALLOC_MIMALLOC, malloc);
    assert_eq!(
        (spot.displacement, spot.arguments.place(0)),
        (21, register(RSI))
    );
    let spot = only(CALLOC_MIMALLOC, CALLOCS);
    let places = [0, 1].map(|index| spot.arguments.place(index));
    assert_eq!(
        (spot.displacement, places),
        (18, [register(RAX), Place::Own])
    );
    let spot = only(REALLOC_MIMALLOC, CALLOCS);
    let places = [0, 1].map(|index| spot.arguments.place(index));
    assert_eq!(
        (spot.displacement, places),
        (20, [register(RSI), register(RDX)])
    );
    assert_eq!((spot.arguments.code(), spot.arguments.stack()), (20, 0));
    // mov %rdi,%rax; mov %rsi,%rdi; push %rbx
    let spot = only(MOVES_ARGUMENT, CALLOCS);
    let places = [0, 1].map(|index| spot.arguments.place(index));
    assert_eq!((spot.displacement, places[0]), (6, register(RAX)));
    assert_eq!(places[1], Place::Own);
}

#[test]
fn half_of_an_argument_is_none() {
    // mov %edi,%eax; xor %edi,%edi; push %rbx
    let code = [0x89, 0xf8, 0x31, 0xff, 0x53];
    assert_eq!(displacement(&code), (0, Step::OutOfLine));
}

#[test]
fn without_cookies_all_is_where_it_was_at_entry() {
    let plain = Needs {
        cookies: false,
        ..FREES
    };
    assert_eq!(spots(FREE_DEBIAN, plain), [(3, Step::Emulated)]);
    assert_eq!(spots(FREE_JEMALLOC_5_3, plain), [(48, Step::Emulated)]);
    assert_eq!(spots(MOVES_STACK, plain), [(0, Step::OutOfLine)]);
    assert_eq!(spots(MALLOC_MIMALLOC, plain), [(0, Step::OutOfLine)]);
    let spot = only(FREE_JEMALLOC_5_3, plain);
    assert_eq!(spot.arguments, Arguments::AT_ENTRY);
}

#[test]
fn a_moved_stack_is_followed_unless_a_return_probe_needs_it() {
    let spot = only(MOVES_STACK, FREES);
    assert_eq!((spot.displacement, spot.arguments.stack()), (4, 0x18));
    assert_eq!(spots(MOVES_STACK, CALLOCS), [(0, Step::OutOfLine)]);
    let mremap = Needs {
        arguments: &[0, 1, 2, 3],
        ..FREES
    };
    let spot = only(MREMAP_DEBIAN, mremap);
    assert_eq!((spot.displacement, spot.arguments.stack()), (28, 0x58));
    assert_eq!(spot.arguments.place(3), Place::Own);
}

#[test]
fn an_argument_in_the_own_frame_is_read_there() {
    // sub $24,%rsp; mov %rdi,8(%rsp); xor %edi,%edi; je
    let spilled = [
        0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0x7c, 0x24, 0x08, 0x31, 0xff, 0x74, 0x10,
    ];
    let spot = only(&spilled, FREES);
    assert_eq!(
        (spot.displacement, spot.arguments.place(0)),
        (11, Place::Stack(8))
    );
    // The same below the stack pointer: mov %rdi,-8(%rsp); xor %edi,%edi; je
    let red = [0x48, 0x89, 0x7c, 0x24, 0xf8, 0x31, 0xff, 0x74, 0x10];
    let spot = only(&red, CALLOCS.of_one());
    assert_eq!(spot.arguments.place(0), Place::Stack(-8));
    // … movl $0,12(%rsp); …: half of it was overwritten
    let mut overwritten = spilled[..9].to_vec();
    overwritten.extend([0xc7, 0x44, 0x24, 0x0c, 0, 0, 0, 0, 0x31, 0xff, 0x74, 0x10]);
    assert_eq!(displacement(&overwritten), (0, Step::OutOfLine));
}

#[test]
fn a_store_above_the_own_frame_falls_back_to_the_start() {
    // mov %rax,(%rsp); push %rbx: the return address
    assert_eq!(
        displacement(&[0x48, 0x89, 0x04, 0x24, 0x53]),
        (0, Step::OutOfLine)
    );
    // lea -8(%rsp),%rdi; rep stos %rax,(%rdi); push %rbx
    let many = [0x48, 0x8d, 0x7c, 0x24, 0xf8, 0xf3, 0x48, 0xab, 0x53];
    assert_eq!(displacement(&many), (0, Step::OutOfLine));
    // mov %rax,%fs:-8(%rsp); push %rbx
    let thread = [0x64, 0x48, 0x89, 0x44, 0x24, 0xf8, 0x53];
    assert_eq!(displacement(&thread), (0, Step::OutOfLine));
}

#[test]
fn registers_of_the_caller_are_whole_at_a_probe() {
    // mov %rdi,%rbx; je
    assert_eq!(
        displacement(&[0x48, 0x89, 0xfb, 0x74, 0x02]),
        (0, Step::OutOfLine)
    );
}

#[test]
fn behind_a_branch_that_is_no_place_each_way_has_one() {
    // sub $8,%rsp; test %rdi,%rdi; je 16; add $8,%rsp; jmp …; 16: add $8,%rsp; jmp …
    let code = [
        0x48, 0x83, 0xec, 0x08, 0x48, 0x85, 0xff, 0x74, 0x07, 0x48, 0x83, 0xc4, 0x08, 0xeb, 0x40,
        0x90, 0x48, 0x83, 0xc4, 0x08, 0xeb, 0x50,
    ];
    let found = spots(&code, CALLOCS.of_one());
    assert_eq!(found, [(13, Step::Emulated), (20, Step::Emulated)]);
    // If one of them returns before, none is a place.
    let mut returns = code;
    returns[20] = 0xc3;
    assert_eq!(spots(&returns, CALLOCS.of_one()), [(0, Step::OutOfLine)]);
    // Nor if they meet: je 13
    let mut meets = code;
    meets[8] = 0x00;
    assert_eq!(spots(&meets, CALLOCS.of_one()), [(0, Step::OutOfLine)]);
    // Nor if another way leads there: jmp 20 behind the first probe
    let mut joined = code;
    joined[14] = 0x05;
    assert_eq!(spots(&joined, CALLOCS.of_one()), [(0, Step::OutOfLine)]);
}

#[test]
fn a_loop_that_counts_falls_back_to_the_start() {
    // loop 2; push %rbx
    assert_eq!(displacement(&[0xe2, 0x00, 0x53]), (0, Step::OutOfLine));
    // jrcxz 4; push %rbx; ret; push %rbp: no loop
    assert_eq!(
        spots(&[0xe3, 0x02, 0x53, 0xc3, 0x55], FREES),
        [(2, Step::Emulated), (4, Step::Emulated)]
    );
    // The same without the return: one call would run into both.
    assert_eq!(
        spots(&[0xe3, 0x01, 0x53, 0x55], FREES),
        [(0, Step::OutOfLine)]
    );
}

#[test]
fn a_loop_back_into_the_entry_block_falls_back_to_the_start() {
    // test %rdi,%rdi; L: je +2; push %rbx; pop %rbx; jmp L
    let code = [0x48, 0x85, 0xff, 0x74, 0x02, 0x53, 0x5b, 0xeb, 0xfa];
    assert_eq!(displacement(&code), (0, Step::OutOfLine));
}

#[test]
fn a_store_before_the_push_falls_back_to_the_start() {
    // mov %rax,(%rdi); push %rbx
    assert_eq!(
        displacement(&[0x48, 0x89, 0x07, 0x53]),
        (0, Step::OutOfLine)
    );
}

#[test]
fn garbage_and_nothing_stay_at_the_start() {
    assert_eq!(displacement(&[]).0, 0);
    assert_eq!(displacement(&[0x06, 0x07, 0xff]).0, 0);
    for seed in 0..=255u8 {
        let bytes: Vec<u8> = (0..64)
            .map(|i: u8| i.wrapping_mul(37).wrapping_add(seed))
            .collect();
        for needs in [FREES, CALLOCS] {
            let placement = place(&bytes, needs);
            assert!(placement.spots().all(|spot| spot.displacement < 64));
        }
    }
}

impl Needs<'_> {
    /// The same with the first argument only.
    fn of_one(self) -> Needs<'static> {
        Needs {
            arguments: &[0],
            fixed_stack: self.fixed_stack,
            cookies: self.cookies,
        }
    }
}

/// The real ones: each probe of a function that allocates or frees is cheap.
#[test]
fn functions_of_the_common_allocators_are_probed_where_the_kernel_emulates() {
    // There a multiplication takes the place of an argument before any branch.
    const STEPPED: [(&str, &str); 1] = [("libc.so.6", "reallocarray")];
    for path in [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/ld-musl-x86_64.so.1",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
        "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4",
        "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0",
    ] {
        let file = ModuleFiles::new().open_path(Path::new(path)).unwrap();
        let found = allocator::in_file(&file, path, false, &[])
            .unwrap()
            .allocator()
            .unwrap();
        for function in &found.functions {
            let is_mapping = function.symbol.contains("map");
            let is_known = STEPPED
                .iter()
                .any(|(file, symbol)| path.ends_with(file) && *function.symbol == **symbol);
            let mut spots = function.placement.spots();
            let is_cheap = spots.all(|spot| spot.step == Step::Emulated);
            assert!(is_cheap || is_mapping || is_known, "{path} {function:?}");
        }
    }
}
