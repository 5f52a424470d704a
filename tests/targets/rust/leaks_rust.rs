//! Leaks of known size of a Rust program with the system's allocator: 20,000 vectors that
//! grew to 1024 bytes.

#[inline(never)]
fn leak() {
    for number in 0..20_000_u64 {
        let mut grown = Vec::new();
        for word in 0..128 {
            grown.push(number + word);
        }
        std::mem::forget(std::hint::black_box(grown));
        drop(std::hint::black_box(vec![1_u8; 3001]));
    }
}

fn main() {
    std::thread::spawn(leak).join().unwrap();
    println!("whole");
    std::process::exit(0);
}
