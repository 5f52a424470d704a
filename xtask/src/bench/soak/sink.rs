//! Whom windows are pushed to: it takes each, as a collector does, and counts.

use std::io::{BufRead, BufReader, Read, Write, copy, sink};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// An empty message of OTLP: all of it was accepted.
const ACCEPTED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";

/// One at work, on threads that end with us.
pub(super) struct Sink {
    port: u16,
    taken: Arc<AtomicU64>,
}

impl Sink {
    /// Starts it at a port of the system's choice.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // One that breaks off is not counted, which the number tells.
                std::thread::spawn(move || take(&stream, &counter));
            }
        });
        Ok(Self { port, taken })
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests that it has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }
}

/// Takes requests until the connection ends.
fn take(stream: &TcpStream, taken: &AtomicU64) -> Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    while let Some(length) = head(&mut reader)? {
        copy(&mut reader.by_ref().take(length), &mut sink())?;
        taken.fetch_add(1, Ordering::AcqRel);
        writer.write_all(ACCEPTED)?;
    }
    Ok(())
}

/// Reads a head; the length of what follows it, bytes. Nothing at the end.
fn head(reader: &mut impl BufRead) -> Result<Option<u64>> {
    let mut length = None;
    for line in reader.lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            return length.map(Some).context("a request without a length");
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = Some(value.trim().parse()?);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_their_lengths() {
        let text = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\n\r\n";
        let mut reader = BufReader::new(text.as_slice());
        assert_eq!(head(&mut reader).unwrap(), Some(3));
        let mut body = [0; 3];
        reader.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"abc");
        assert!(head(&mut reader).is_err());
        assert_eq!(head(&mut reader).unwrap(), None);
    }
}
