//! A Rust program that leaks, with the handshake of `target.h`.

#[path = "common/handshake.rs"]
mod handshake;

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

fn main() {
    handshake::serve(leak_vectors, [13, 4667, 0, 0]);
}
