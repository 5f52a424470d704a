//! Files with USDT probes, and arguments of any text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_ebpf::operand::{Machine, Register};
use unfreed_fuzz::process::address::ElfAddress;
use unfreed_fuzz::usdt::argument::Argument;

/// A thread whose registers and memory are what they are asked for.
struct Any;

impl Machine for Any {
    fn register(&self, register: Register) -> Option<u64> {
        assert!(register.offset() < 21 * 8);
        Some(register.offset() << 56)
    }

    fn memory(&self, address: u64, bytes: u32) -> Option<u64> {
        assert!((1..=8).contains(&bytes));
        Some(address)
    }
}

fuzz_target!(|input: &[u8]| {
    if let Ok(probes) = unfreed_fuzz::usdt::read(&input) {
        for argument in probes
            .iter()
            .flat_map(|probe| &probe.sites)
            .flat_map(|s| &s.arguments)
        {
            if let Ok(operand) = &argument.operand {
                operand.evaluate(&Any);
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(argument) = Argument::parse(text)
    {
        let symbol = |name: &str| Some(ElfAddress(name.len() as u64));
        if let Ok(operand) = argument.operand(ElfAddress(u64::MAX), symbol) {
            assert!(operand.evaluate(&Any).is_some());
        }
    }
});
