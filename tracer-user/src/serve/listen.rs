//! Where others may ask: an address, or a unix socket.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Where it listens, and is asked, if nothing else is said.
pub const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7411);

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// An address. One that is not of this host alone needs TLS.
    Address(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
    /// Nowhere.
    Nowhere,
}

impl Default for Listen {
    fn default() -> Self {
        Self::Address(USUAL)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Nowhere);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return match path.is_absolute() {
                true => Ok(Self::Unix(path)),
                false => Err("write unix:/PATH, from the root on".to_owned()),
            };
        }
        text.parse()
            .map(Self::Address)
            .map_err(|_| "write 127.0.0.1:PORT, [::1]:PORT, unix:/PATH or none".to_owned())
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Nowhere => f.write_str("nothing"),
        }
    }
}

/// An open listener.
#[derive(Debug)]
pub enum Listener {
    /// At an address.
    Tcp(TcpListener),
    /// At a socket in the file system.
    Unix(UnixListener),
}

impl Listen {
    /// Whether it is an address.
    pub const fn is_address(&self) -> bool {
        matches!(self, Self::Address(_))
    }

    /// The address, if others than this host's programs can ask there.
    pub fn beyond_loopback(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()).filter(|ip| !ip.is_loopback()),
            Self::Unix(_) | Self::Nowhere => None,
        }
    }

    /// Opens it; nothing if it is nowhere.
    ///
    /// # Errors
    /// Says what stands in the way.
    pub fn open(&self) -> Result<Option<Listener>> {
        let cannot = || format!("cannot listen at {self}");
        match self {
            Self::Nowhere => Ok(None),
            Self::Address(address) => {
                let listener = TcpListener::bind(address).with_context(cannot)?;
                listener.set_nonblocking(true)?;
                Ok(Some(Listener::Tcp(listener)))
            }
            Self::Unix(path) => {
                let listener = open_socket(path).with_context(cannot)?;
                listener.set_nonblocking(true)?;
                Ok(Some(Listener::Unix(listener)))
            }
        }
    }
}

/// Makes the socket. One that was left behind is taken away; any other file stays.
fn open_socket(path: &Path) -> Result<UnixListener> {
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            bail!("{} is there, and is no socket", path.display());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("somebody listens there already");
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Who connects is asked who it is.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

impl Listener {
    /// Where it is: the port may have been the system's choice.
    pub fn place(&self, is_encrypted: bool) -> String {
        let scheme = if is_encrypted { "https" } else { "http" };
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(
                |_| "?".to_owned(),
                |address| format!("{scheme}://{address}"),
            ),
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|it| it.as_pathname());
                path.map_or_else(|| "?".to_owned(), |path| format!("unix:{}", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_else_can_ask_is_known() {
        let beyond = |text: &str| text.parse::<Listen>().unwrap().beyond_loopback().is_some();
        for text in [
            "0.0.0.0:80",
            "10.0.0.1:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(beyond(text), "{text}");
        }
        for text in [
            "127.0.0.1:0",
            "[::1]:7411",
            "127.8.9.1:1",
            "unix:/run/a",
            "none",
        ] {
            assert!(!beyond(text), "{text}");
        }
        assert!("unix:a".parse::<Listen>().is_err());
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("here");
        fs::write(&path, "mine").unwrap();
        assert!(Listen::Unix(path.clone()).open().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let socket = folder.path().join("socket");
        let listen = Listen::Unix(socket);
        let first = listen.open().unwrap();
        let error = format!("{:#}", listen.open().unwrap_err());
        assert!(error.contains("already"), "{error}");
        drop(first);
        assert!(listen.open().unwrap().is_some());
    }
}
