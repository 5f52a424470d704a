//! The short name of a process.

/// What the kernel calls a process (`/proc/PID/comm`): up to 15 bytes of its program's name, or
/// what it calls itself. `None` if it is gone.
pub fn short_name(pid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_names_while_they_live() {
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(
            short_name(std::process::id()).as_deref(),
            Some(own.trim_end())
        );
        assert_eq!(short_name(u32::MAX), None);
    }
}
