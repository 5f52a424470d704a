//! Where a `serve` is asked.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::serve::listen::Listen;

/// Where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(Listen);

impl Default for Place {
    /// Where it listens if nothing else is said.
    fn default() -> Self {
        Self(Listen::default())
    }
}

impl Place {
    /// A socket in the file system.
    pub const fn of_socket(path: PathBuf) -> Self {
        Self(Listen::Unix(path))
    }

    /// The address, or the socket.
    pub(super) const fn listen(&self) -> &Listen {
        &self.0
    }
}

impl FromStr for Place {
    type Err = String;

    /// An address as `serve` prints it: `http://127.0.0.1:7411`.
    fn from_str(text: &str) -> Result<Self, String> {
        const WRITE: &str = "write http://127.0.0.1:PORT or http://[::1]:PORT";
        const ELSEWHERE: &str = "only this host can be asked, since the token would go over the network for all to read: forward the port (ssh -L 7411:127.0.0.1:7411 HOST), and ask http://127.0.0.1:7411";
        if text.starts_with("https://") {
            return Err(ELSEWHERE.to_owned());
        }
        let rest = text.strip_prefix("http://").ok_or(WRITE)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let address = match rest.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => rest.to_owned(),
        };
        let is_address = address.parse::<std::net::SocketAddr>().is_ok();
        match address.parse() {
            Ok(listen @ Listen::Loopback(_)) => Ok(Self(listen)),
            _ if is_address => Err(ELSEWHERE.to_owned()),
            _ => Err(WRITE.to_owned()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serve_prints_can_be_asked() {
        for (text, shown) in [
            ("http://127.0.0.1:7411", "http://127.0.0.1:7411"),
            ("http://localhost:80/", "http://127.0.0.1:80"),
            ("http://[::1]:1", "http://[::1]:1"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_token_never_leaves_the_host() {
        for text in ["http://10.0.0.1:80", "https://a", "http://0.0.0.0:1"] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains("ssh -L"), "{text}: {error}");
        }
        for text in [
            "127.0.0.1:1",
            "http://a:1",
            "http://127.0.0.1",
            "http://unix:/a",
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains("write http"), "{text}: {error}");
        }
    }
}
