//! Where a `serve` is asked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use axum::http::Uri;

use crate::serve::listen::USUAL;

/// Where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At an address of this host.
    Http(SocketAddr),
    /// Anywhere, with TLS: the name or the address, and the port.
    Https(String, u16),
    /// At a socket in the file system.
    Unix(PathBuf),
}

impl Default for Place {
    fn default() -> Self {
        Self::Http(USUAL)
    }
}

impl Place {
    /// Whether it is at an address of this host.
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Http(address) => address.ip().is_loopback(),
            Self::Https(host, _) => {
                let ip = host.parse::<IpAddr>();
                host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
            }
            Self::Unix(_) => false,
        }
    }
}

impl FromStr for Place {
    type Err = String;

    /// An address as `serve` prints it: `http://127.0.0.1:7411`.
    fn from_str(text: &str) -> Result<Self, String> {
        const WRITE: &str = "write http://127.0.0.1:PORT, http://[::1]:PORT or https://HOST:PORT";
        const ELSEWHERE: &str = "only this host can be asked by http, since the token would go over the network for all to read: ask https://HOST:PORT of a `serve` with --tls-cert, or forward the port (ssh -L 7411:127.0.0.1:7411 HOST), and ask http://127.0.0.1:7411";
        let url: Uri = text.parse().map_err(|_| WRITE)?;
        let is_bare = url.path_and_query().is_none_or(|path| path.as_str() == "/");
        let (Some(scheme), Some(host), Some(port)) = (url.scheme_str(), url.host(), url.port_u16())
        else {
            return Err(WRITE.to_owned());
        };
        if !is_bare || url.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(WRITE.to_owned());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if scheme == "https" {
            return Ok(Self::Https(host.to_owned(), port));
        }
        let address = match host {
            "localhost" => Ok(IpAddr::from(Ipv4Addr::LOCALHOST)),
            host => host.parse(),
        };
        match (scheme, address) {
            ("http", Ok(ip)) if ip.is_loopback() => Ok(Self::Http(SocketAddr::from((ip, port)))),
            ("http", _) => Err(ELSEWHERE.to_owned()),
            _ => Err(WRITE.to_owned()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Https(host, port) if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Https(host, port) => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
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
            ("https://10.0.0.1:1", "https://10.0.0.1:1"),
            ("https://[fd00::1]:1/", "https://[fd00::1]:1"),
            ("https://db.example.org:7411", "https://db.example.org:7411"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_token_leaves_the_host_with_tls_alone() {
        for text in ["http://10.0.0.1:80", "http://a:1", "http://0.0.0.0:1"] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains("ssh -L"), "{text}: {error}");
        }
        for text in [
            "127.0.0.1:1",
            "http://127.0.0.1",
            "http://unix:/a",
            "https://a",
            "https://u@a:1",
            "https://a:1/path",
            "https://a:1/?q",
            "ftp://a:1",
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains("write http"), "{text}: {error}");
        }
    }

    #[test]
    fn the_usual_token_is_this_hosts() {
        for (text, is_here) in [
            ("https://localhost:1", true),
            ("https://[::1]:1", true),
            ("https://10.0.0.1:1", false),
            ("https://localhost.example.org:1", false),
        ] {
            assert_eq!(
                text.parse::<Place>().unwrap().is_loopback(),
                is_here,
                "{text}"
            );
        }
    }
}
