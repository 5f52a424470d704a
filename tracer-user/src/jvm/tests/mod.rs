//! Real VMs, one of each JDK at hand.

mod target;

use std::ops::Range;

use self::target::{Classes, JavaTarget, Jdk};
use super::Jvm;
use super::places::Places;

const WAITS: &str = r#"
public class Waits {
    public static void main(String[] arguments) throws Exception {
        System.out.println("up");
        System.in.read();
    }
}
"#;

#[test]
fn the_layout_of_each_jdk_is_known_and_leads_to_its_code() {
    let classes = Classes::compile("Waits", WAITS);
    for jdk in Jdk::all() {
        let mut target = JavaTarget::start(&jdk, &classes, &[], "Waits");
        assert_eq!(target.line(), "up");
        let jvm = Jvm::find(&target.code()).unwrap().expect("a VM");
        let Places { heaps, .. } = &jvm.places;
        let is_code = |address| heaps.iter().any(|heap| heap.reserved.contains(&address));
        let Range { start, end } = jvm.places.interpreter;
        println!("{}: {:?} {:x?}", jdk.name(), jvm.layout, jvm.places);
        assert!(is_code(start) && is_code(end - 1) && end - start < 1 << 20);
        assert!(is_code(jvm.places.call_stub_return));
        let barrier = jvm.places.return_barrier;
        assert!(barrier.is_none_or(is_code));
        let virtual_threads = jvm.structs.field("JavaThread", "_vthread").is_some();
        assert_eq!(barrier.is_some(), virtual_threads);
    }
}
