//! One question and one answer, over HTTP/1.1. What comes back is bounded in time and size.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HOST};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Place;
use crate::serve::http::token;
use crate::serve::trust;

/// An answer comes within this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of an answer so much is read, bytes as they come and unpacked.
const MOST_ANSWER: usize = 256 << 20;
/// The token that a `serve` makes whose state is in its usual folder.
const OWN_TOKEN: &str = "/var/lib/unfreed/token";

/// What lets in.
pub struct Token {
    text: Option<String>,
    /// Where it is from, if there is one.
    file: PathBuf,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &mut f.debug_struct("Token");
        shown.field("file", &self.file).finish_non_exhaustive()
    }
}

impl Token {
    /// That of the file that was named. Otherwise, for an address, that of a `serve` with its
    /// usual folder, if it is there; a socket asks who connects.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(named: Option<&Path>, place: &Place) -> Result<Self> {
        let file = named.unwrap_or(Path::new(OWN_TOKEN));
        let is_usual = place.is_loopback() && is_there(file);
        let text = match named.is_some() || is_usual {
            true => Some(token(file, false).context(
                "only who may read the token can ask: do it by sudo, or name another --token-file",
            )?),
            false => None,
        };
        let file = file.to_owned();
        Ok(Self { text, file })
    }

    fn header(&self) -> Result<Option<HeaderValue>> {
        let Some(text) = &self.text else {
            return Ok(None);
        };
        let mut value: HeaderValue = format!("Bearer {text}")
            .parse()
            .context("the token has letters that no header may have")?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Whether a file may be there: it is, or its folder cannot be looked into.
fn is_there(file: &Path) -> bool {
    let looked = std::fs::metadata(file);
    !looked.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, unpacked.
    pub body: Vec<u8>,
}

/// The way to a `serve`.
pub struct Transport {
    place: Place,
    token: Token,
    tls: TlsConnector,
    runtime: Runtime,
}

impl Transport {
    /// Nothing is asked yet. With TLS certificates of a file are believed, or those of the system.
    ///
    /// # Errors
    /// They cannot be read, or the system has no descriptors left.
    pub fn new(place: Place, token: Token, tls_ca: Option<&Path>) -> Result<Self> {
        let config = match &place {
            Place::Https(..) => trust::known(tls_ca)?,
            Place::Http(_) | Place::Unix(_) => trust::nobody()?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            place,
            token,
            tls: TlsConnector::from(Arc::new(config)),
            runtime,
        })
    }

    /// Where it asks.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Why one may not ask, and what mends that.
    pub fn refused(&self) -> String {
        let (place, file) = (&self.place, self.token.file.display());
        match (&self.token.text, &self.place) {
            (Some(_), _) => format!(
                "the token of {file} is refused at {place}: it is not the one that this `serve` has (--token-file; it makes one as `token` in the folder of its --state)"
            ),
            (None, Place::Unix(_)) => format!(
                "you may not ask at {place}: root, the tracer's user and its `users` may, and who has its token (--token-file)"
            ),
            (None, _) => format!(
                "who asks at {place} needs its token: name it by --token-file (`serve` makes one as `token` in the folder of its --state)"
            ),
        }
    }

    /// Asks for a path, on a connection of its own.
    ///
    /// # Errors
    /// Nobody answers, too late, or too much.
    pub fn ask(&self, path: &str) -> Result<Answer> {
        self.answer(&Method::GET, path)
    }

    /// Has something done that a path stands for.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn order(&self, path: &str) -> Result<Answer> {
        self.answer(&Method::POST, path)
    }

    fn answer(&self, method: &Method, path: &str) -> Result<Answer> {
        let request = self.request(method, path)?;
        let asked = async { timeout(PATIENCE, self.exchange(request)).await };
        match self.runtime.block_on(asked) {
            Ok(answer) => answer,
            Err(_) => bail!(
                "{} gives no answer within {}",
                self.place,
                humantime::format_duration(PATIENCE)
            ),
        }
    }

    async fn exchange(&self, request: Request<Empty<Bytes>>) -> Result<Answer> {
        match &self.place {
            Place::Http(address) => {
                let stream = TcpStream::connect(address).await;
                self.over(stream.map_err(|error| self.nobody(error))?, request)
                    .await
            }
            Place::Https(host, port) => {
                let stream = self.encrypted(host, *port).await?;
                self.over(stream, request).await
            }
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                self.over(stream.map_err(|error| self.nobody(error))?, request)
                    .await
            }
        }
    }

    async fn encrypted(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("{host:?} is no name of a host"))?;
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.map_err(|error| self.nobody(error))?;
        self.tls.connect(name, stream).await.with_context(|| {
            format!(
                "there is no TLS with {}: is it `unfreed serve` with --tls-cert, and of a certificate that this system trusts, or that is in the file of --tls-ca?",
                self.place
            )
        })
    }

    async fn over<S>(&self, stream: S, request: Request<Empty<Bytes>>) -> Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broken = || format!("{} does not answer by HTTP", self.place);
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.with_context(broken)?;
        // It ends with the answer, which tells of its failures.
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        let answer = answer.with_context(broken)?;
        let status = answer.status();
        let is_packed = answer
            .headers()
            .get(CONTENT_ENCODING)
            .is_some_and(|it| it == "gzip");
        let body = Limited::new(answer.into_body(), MOST_ANSWER);
        let body = body.collect().await;
        let body = body.map_err(|error| anyhow!("the answer of {} is cut: {error}", self.place))?;
        drop(sender);
        connection.abort();
        let body = body.to_bytes();
        let body = match is_packed {
            true => unpacked(&body).with_context(broken)?,
            false => body.to_vec(),
        };
        Ok(Answer { status, body })
    }

    fn request(&self, method: &Method, path: &str) -> Result<Request<Empty<Bytes>>> {
        let place = self.place.to_string();
        let host = match (&self.place, place.split_once("://")) {
            (Place::Http(_) | Place::Https(..), Some((_, host))) => host,
            _ => "localhost",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(ACCEPT_ENCODING, "gzip")
            .body(Empty::new())?;
        if let Some(token) = self.token.header()? {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        Ok(request)
    }

    /// Nobody is there.
    fn nobody(&self, error: std::io::Error) -> anyhow::Error {
        let remedy = match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                "is `unfreed serve` running, and does it listen there? Its first lines say where; --url and --socket say it here"
            }
            ErrorKind::PermissionDenied => "you may not open this socket",
            _ => "the system will not connect",
        };
        anyhow::Error::new(error).context(format!("nobody answers at {}: {remedy}", self.place))
    }
}

fn unpacked(body: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MOST_ANSWER as u64;
    GzDecoder::new(body)
        .take(most + 1)
        .read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= most,
        "an answer of more than {} MiB is not read",
        most >> 20
    );
    Ok(bytes)
}
