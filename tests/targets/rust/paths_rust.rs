// flags: -O -C force-frame-pointers=no -C debuginfo=0
//! Call paths of a release build, with the handshake of `target.h`. Each
//! command does the same each time it is run.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::panic::{self, catch_unwind};
use std::thread;

#[inline(never)]
fn block(size: usize) {
    drop(black_box(Vec::<u8>::with_capacity(black_box(size))));
}

trait Shape {
    fn visit(&self, depth: usize) -> usize;
}

struct Small;
struct Large([u64; 40]);

impl Shape for Small {
    #[inline(never)]
    fn visit(&self, depth: usize) -> usize {
        block(1447);
        descend(depth, Large([depth as u64; 40])) + 1
    }
}

impl Shape for Large {
    #[inline(never)]
    fn visit(&self, depth: usize) -> usize {
        drop(black_box(Box::new([self.0[0] as u8; 1451])));
        descend(depth, Small) + self.0[1] as usize
    }
}

#[inline(never)]
fn descend<S: Shape + 'static>(depth: usize, shape: S) -> usize {
    let shape: Box<dyn Shape> = Box::new(shape);
    if depth == 0 { 0 } else { black_box(&shape).visit(depth - 1) + 1 }
}

#[inline(never)]
fn recursion() {
    black_box(descend(50, Small));
}

struct OnDrop;

impl Drop for OnDrop {
    #[inline(never)]
    fn drop(&mut self) {
        block(1453);
    }
}

#[inline(never)]
fn panics(depth: usize) {
    let _guard = OnDrop;
    if depth == 0 {
        panic!("of size {}", black_box(1459));
    }
    panics(depth - 1);
    black_box(());
}

#[inline(never)]
fn caught() {
    let _panic = black_box(catch_unwind(|| panics(5)));
    block(1471);
}

#[inline(never)]
fn sorts() {
    let mut numbers: Vec<u32> = (0..60).map(|number| number * 37 % 61).collect();
    numbers.sort_by(|one, other| {
        block(1481);
        one.cmp(other)
    });
    let text: String = numbers.iter().map(|number| format!("{number:>3}")).collect();
    black_box(text);
}

#[inline(never)]
fn threads() {
    let workers: Vec<_> = (0..3).map(|_| thread::spawn(recursion)).collect();
    for worker in workers {
        worker.join().expect("it does not panic");
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).expect("stdout is open");
}

fn main() {
    panic::set_hook(Box::new(|_| block(1483)));
    say(&format!("{} ready\n", std::process::id()));
    for line in std::io::stdin().lock().lines() {
        match line.expect("stdin is readable").as_str() {
            "recursion" => recursion(),
            "caught" => caught(),
            "sorts" => sorts(),
            "threads" => threads(),
            other => {
                say(&format!("no command {other}\n"));
                continue;
            }
        }
        say("done {\"sites\":[],\"untraced_frees\":0,\"losses\":0,\"others\":true}\n");
    }
}
