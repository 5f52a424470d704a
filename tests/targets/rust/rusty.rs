//! A Rust program that leaks, with the handshake of `target.h`.

use std::io::{BufRead, Write};

mod cart {
    pub struct Basket;

    pub trait Leak {
        fn leak(&self, count: usize);
    }

    impl Leak for Basket {
        #[inline(never)]
        fn leak(&self, count: usize) {
            for _ in 0..count {
                std::hint::black_box(block()).leak();
            }
        }
    }

    #[inline(never)]
    fn block() -> Vec<u8> {
        Vec::with_capacity(359)
    }
}

#[inline(never)]
fn leak_vectors() {
    use cart::Leak;
    cart::Basket.leak(13);
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
            r#""allocated_count":13,"allocated_bytes":4667,"freed_count":0,"freed_bytes":0}],"#,
            r#""untraced_frees":0,"losses":0,"others":true}"#,
            "\n"
        ));
    }
}
