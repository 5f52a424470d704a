//! Methods of a perf map as HotSpot writes it: `int a.B.c(long, d.E)`; its own
//! code has names of other forms.

use std::ops::Range;

use super::frames::JavaFrame;
use super::klass::stable;
use crate::process::perf_map::PerfMap;

/// The methods of a perf map, each with the place of its code.
pub fn methods(text: &[u8]) -> Vec<(Range<u64>, JavaFrame)> {
    let map = PerfMap::parse(text);
    let methods = map.functions();
    methods
        .filter_map(|(place, name)| Some((place, method(&name)?)))
        .collect()
}

fn method(name: &str) -> Option<JavaFrame> {
    let (head, arguments) = name.split_once('(')?;
    if !arguments.ends_with(')') {
        return None;
    }
    let (_returned, whole) = head.split_once(' ')?;
    let (class, method) = whole.rsplit_once('.')?;
    let is_name = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    if !is_name(class) || !is_name(method) {
        return None;
    }
    Some(JavaFrame::told(
        stable(class).to_owned(),
        method.to_owned(),
        None,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_have_names() {
        let of = |name| {
            let frame = method(name)?;
            Some(format!("{}.{}", frame.class?, frame.method?))
        };
        for (name, expected) in [
            (
                "int java.lang.String.hashCode()",
                "java.lang.String.hashCode",
            ),
            ("void a.B.<init>(long, d.E[])", "a.B.<init>"),
            ("d.E Main.run(java.lang.String)", "Main.run"),
            ("void a.Foo$$Lambda/0x00007f12.run()", "a.Foo$$Lambda.run"),
        ] {
            assert_eq!(of(name).as_deref(), Some(expected), "{name}");
        }
        for name in [
            "",
            "StubRoutines (1)",
            "I2C/C2I adapters(0xba)",
            "Interpreter",
            "MethodHandle::interpreter_entry::_invoke",
            "int .()",
            "int a b.c()",
            "int a.b(",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn places_come_with_them() {
        let found = methods(b"0x7f00 0x20 int a.B.c()\n0x7f20 0x10 StubRoutines (1)\nbroken\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 0x7f00..0x7f20);
    }
}
