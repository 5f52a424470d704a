//! `.eh_frame` of any content, in a file that is sound otherwise: each rule is
//! what gimli's own evaluation makes of it.

#![no_main]

use gimli::UnwindSection;
use gimli::{BaseAddresses, CfaRule, EhFrame, LittleEndian, RegisterRule, UnwindContext};
use libfuzzer_sys::fuzz_target;
use tracer_ebpf::rule::Rule;
use unfreed_fuzz::tiny::{CODE, FRAMES, Tiny};
use unfreed_fuzz::unwind::{RuleRow, Table};

/// Bytes of code: calls, and what stands for a signal's return.
const LENGTH: u64 = 512;

fuzz_target!(|frames: &[u8]| {
    let mut code = [0xe8, 0, 0, 0, 0, 0x90, 0xff, 0xd0].repeat(64);
    code[64..73].copy_from_slice(&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]);
    let mut tiny = Tiny::new(&code);
    tiny.frames = frames.to_vec();
    let Ok(Some(table)) = Table::parse(&tiny.build()) else {
        return;
    };
    let omitted = &table.omitted;
    if omitted.malformed + omitted.overlapping + omitted.outside + omitted.sections > 0 {
        // Then the two may well differ.
        return;
    }
    for offset in (0..LENGTH).step_by(7) {
        compare(&table.full, offset, frames);
    }
});

fn compare(rows: &[RuleRow], offset: u64, frames: &[u8]) {
    let after = rows.partition_point(|row| u64::from(row.offset) <= offset);
    let ours = rows[after - 1].rule;
    if !ours.goes_on() || ours.is_in_memory() || ours.is_plt() {
        return;
    }
    let bases = BaseAddresses::default().set_eh_frame(FRAMES);
    let section = EhFrame::new(frames, LittleEndian);
    let mut context = UnwindContext::new();
    let row = section.unwind_info_for_address(
        &bases,
        &mut context,
        CODE + offset,
        EhFrame::cie_from_offset,
    );
    // gimli remembers fewer states, and refuses more.
    let Ok(row) = row else { return };
    assert_eq!(
        row.register(gimli::X86_64::RA),
        Some(RegisterRule::Offset(-8))
    );
    // Or it is an expression: that of a stub, which has plain rows.
    let CfaRule::RegisterAndOffset { offset, .. } = row.cfa() else {
        return;
    };
    assert_eq!(ours.offset().cast_signed(), *offset);
    assert_ne!(ours, Rule::NONE);
}
