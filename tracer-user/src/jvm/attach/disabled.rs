//! Whether an option forbids the attach mechanism. Such a JVM answers SIGQUIT
//! with a thread dump in its output, which nobody asked for.

use std::io::Read;

use crate::process::handle::ProcessHandle;

/// More of the arguments or the environment is not read.
const MAX_BYTES: u64 = 4 << 20;
/// The option, without its sign.
const OPTION: &[u8] = b"DisableAttachMechanism";

/// Whether the arguments or the environment switch it off. For JVMs without
/// counters, which tell better: options in files are not seen here, and then
/// the time limit tells.
pub fn by_option(process: &ProcessHandle) -> bool {
    let read = |name| {
        let mut bytes = Vec::new();
        let _unreadable = process
            .open_proc(name)
            .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        bytes
    };
    in_options(&read("cmdline"), &read("environ"))
}

/// The last mention counts, in the order in which the JVM reads its options.
fn in_options(arguments: &[u8], environment: &[u8]) -> bool {
    let variable = |name: &[u8]| {
        environment
            .split(|&byte| byte == 0)
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
            .unwrap_or_default()
    };
    let sources = [
        variable(b"JAVA_TOOL_OPTIONS"),
        variable(b"JDK_JAVA_OPTIONS"),
        arguments,
        variable(b"_JAVA_OPTIONS"),
    ];
    let words = sources
        .into_iter()
        .flat_map(|source| source.split(|byte| *byte == 0 || byte.is_ascii_whitespace()));
    let mut signs = words.filter_map(|word| {
        let (sign, name) = word.strip_prefix(b"-XX:")?.split_first()?;
        (name == OPTION).then_some(*sign)
    });
    signs.next_back() == Some(b'+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mention_counts() {
        let on = b"java\0-XX:+DisableAttachMechanism\0Main\0";
        let off = b"java\0-XX:-DisableAttachMechanism\0Main\0";
        assert!(in_options(on, b""));
        assert!(!in_options(off, b""));
        assert!(!in_options(b"java\0Main\0", b"PATH=/bin\0"));
        let tool = b"A=B\0JAVA_TOOL_OPTIONS=-Xmx1g -XX:+DisableAttachMechanism\0";
        assert!(in_options(b"java\0Main\0", tool));
        assert!(!in_options(off, tool));
        let last = b"_JAVA_OPTIONS=-XX:-DisableAttachMechanism\0";
        assert!(!in_options(on, last));
        assert!(!in_options(b"java\0-XX:+DisableAttachMechanismX\0", b""));
    }
}
