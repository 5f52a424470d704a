//! What is sent, and what comes back: version 1 of the protocol, which every
//! JVM from 6 on speaks.

use super::AttachError;

/// More of an answer is not read.
pub const MAX_BYTES: usize = 64 << 20;
/// Of a failed command's words this many characters are kept.
const MAX_WORDS: usize = 300;

/// The request that runs a diagnostic command: version, operation and always
/// three arguments, each ended by a zero byte.
pub fn request(command: &str) -> Vec<u8> {
    // A zero in the command would begin another argument.
    let command = command.replace('\0', " ");
    format!("1\0jcmd\0{command}\0\0\0").into_bytes()
}

/// The text of an answer: a line with the status, then what the command
/// prints.
pub fn parse(bytes: &[u8]) -> Result<String, AttachError> {
    if bytes.is_empty() {
        return Err(AttachError::Refused);
    }
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (line, text) = bytes.split_at(end.ok_or(AttachError::Malformed)?);
    let status: Option<i32> = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.parse().ok());
    let text = String::from_utf8_lossy(text.get(1..).unwrap_or_default());
    match status {
        None => Err(AttachError::Malformed),
        Some(0) => Ok(text.into_owned()),
        Some(status) => Err(AttachError::Command {
            status,
            text: text.trim().chars().take(MAX_WORDS).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_three_arguments() {
        assert_eq!(request("VM.version"), b"1\0jcmd\0VM.version\0\0\0");
        assert_eq!(request("a\0b").iter().filter(|&&b| b == 0).count(), 5);
    }

    #[test]
    fn the_status_comes_before_the_text() {
        assert_eq!(parse(b"0\n").unwrap(), "");
        assert_eq!(parse(b"0\na\nb\n").unwrap(), "a\nb\n");
        assert_eq!(parse(b"0\n\xff").unwrap(), "\u{fffd}");
    }

    #[test]
    fn failures_are_told_apart() {
        assert!(matches!(parse(b""), Err(AttachError::Refused)));
        for malformed in [&b"0"[..], b"x\n0", b"\n", b"99999999999\n"] {
            assert!(matches!(parse(malformed), Err(AttachError::Malformed)));
        }
        let long = format!("-1\n  java.lang.Exception: {}", "x".repeat(1000));
        let Err(AttachError::Command { status, text }) = parse(long.as_bytes()) else {
            panic!("no command failure")
        };
        assert_eq!((status, text.len()), (-1, MAX_WORDS));
        assert!(text.starts_with("java.lang.Exception"));
    }
}
