// jemalloc: _rjem_
// flags: -O -C link-arg=target/targets/libjemalloc__rjem_.a -C link-arg=-lstdc++ -C link-arg=-lm
//! A Rust program with jemalloc as its global allocator, with the names that
//! its crate gives it.

use std::alloc::{GlobalAlloc, Layout};
use std::io::{BufRead, Write};

unsafe extern "C" {
    fn _rjem_malloc(size: usize) -> *mut u8;
    fn _rjem_mallocx(size: usize, flags: i32) -> *mut u8;
    fn _rjem_calloc(count: usize, size: usize) -> *mut u8;
    fn _rjem_realloc(old: *mut u8, size: usize) -> *mut u8;
    fn _rjem_sdallocx(block: *mut u8, size: usize, flags: i32);
}

struct Jemalloc;

// SAFETY: jemalloc keeps what GlobalAlloc asks for.
unsafe impl GlobalAlloc for Jemalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match layout.align() <= 16 {
            true => unsafe { _rjem_malloc(layout.size()) },
            // MALLOCX_LG_ALIGN
            false => unsafe { _rjem_mallocx(layout.size(), layout.align().trailing_zeros() as i32) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { _rjem_calloc(1, layout.size()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { _rjem_sdallocx(block, layout.size(), 0) }
    }

    unsafe fn realloc(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
        unsafe { _rjem_realloc(block, size) }
    }
}

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

/// 11 that stay, 5 that do not.
#[inline(never)]
fn leak_vectors() {
    for index in 0..16 {
        let block = std::hint::black_box(Vec::<u8>::with_capacity(431));
        if index < 11 {
            block.leak();
        }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).expect("stdout is open");
}

fn main() {
    say(&format!("{} ready\n", std::process::id()));
    for line in std::io::stdin().lock().lines() {
        match line.expect("stdin is readable").as_str() {
            "leak_vectors" => leak_vectors(),
            other => {
                say(&format!("no command {other}\n"));
                continue;
            }
        }
        say(concat!(
            r#"done {"sites":[{"function":"leak_vectors","size":0,"kind":"heap","checked":"all","#,
            r#""allocated_count":16,"allocated_bytes":6896,"freed_count":5,"freed_bytes":2155}],"#,
            r#""untraced_frees":0,"losses":0,"others":true}"#,
            "\n"
        ));
    }
}
