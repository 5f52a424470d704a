//! Who may ask: by a bearer token, or as the user at the other end of a unix socket.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use anyhow::{Context, Result, ensure};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};

use super::limit::Limited;
use super::tls::Encrypted;
use super::{Answers, Refusal};

/// The token that is made has so many random bytes.
const TOKEN_BYTES: usize = 32;
/// A token has so many letters at least, so that nobody guesses it.
const LEAST_TOKEN: usize = 16;
/// And so many at most.
const MOST_TOKEN: u64 = 4096;

/// Who may ask.
pub struct Auth {
    /// The bearer token.
    pub token: String,
    /// Users at the other end of a unix socket.
    pub users: Vec<u32>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The user, if the kernel tells.
    user: Option<u32>,
}

impl Connected<IncomingStream<'_, Limited<TcpListener>>> for Peer {
    fn connect_info(_: IncomingStream<'_, Limited<TcpListener>>) -> Self {
        Self { user: None }
    }
}

impl Connected<IncomingStream<'_, Encrypted>> for Peer {
    fn connect_info(_: IncomingStream<'_, Encrypted>) -> Self {
        Self { user: None }
    }
}

impl Connected<IncomingStream<'_, Limited<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited<UnixListener>>) -> Self {
        let credentials = stream.io().io().peer_cred();
        Self {
            user: credentials.ok().map(|it| it.uid()),
        }
    }
}

/// Lets those through who may ask.
pub async fn check(
    State(answers): State<Arc<Answers>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(AUTHORIZATION);
    let header = header.and_then(|header| header.to_str().ok());
    if answers.allows(peer, header) {
        return next.run(request).await;
    }
    let sentence =
        "this needs the token of --token-file, in a header `Authorization: Bearer TOKEN`";
    Refusal(StatusCode::UNAUTHORIZED, sentence.to_owned()).into_response()
}

impl Answers {
    /// From now on these may ask, and nobody else.
    pub fn let_in(&self, auth: Auth) {
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = auth;
    }

    fn allows(&self, peer: Peer, header: Option<&str>) -> bool {
        let auth = self.auth.read().unwrap_or_else(PoisonError::into_inner);
        auth.allows(peer, header)
    }
}

impl Auth {
    fn allows(&self, peer: Peer, header: Option<&str>) -> bool {
        let bearer = header.and_then(|header| header.strip_prefix("Bearer "));
        peer.user.is_some_and(|user| self.users.contains(&user))
            || bearer.is_some_and(|token| is_same(token.trim(), &self.token))
    }
}

/// Whether two texts are the same: how long it takes tells nothing of where they differ.
fn is_same(one: &str, other: &str) -> bool {
    let bytes = one.bytes().zip(other.bytes());
    let differences = bytes.fold(0, |all, (one, other)| all | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

/// The token of a file. One that is ours is made if it is not there, for its owner alone.
///
/// # Errors
/// It cannot be read or made, or it is too short.
pub fn token(path: &Path, is_ours: bool) -> Result<String> {
    let shown = path.display();
    if is_ours && !path.exists() {
        make(path).with_context(|| format!("cannot make the token {shown}"))?;
    }
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MOST_TOKEN).read_to_string(&mut text))
        .with_context(|| format!("cannot read the token {shown}"))?;
    let token = text.trim().to_owned();
    ensure!(
        token.len() >= LEAST_TOKEN,
        "the token in {shown} is too short: {LEAST_TOKEN} letters at least; `openssl rand -hex 32` makes one"
    );
    Ok(token)
}

fn make(path: &Path) -> Result<()> {
    let mut random = [0; TOKEN_BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let letters: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(writeln!(file, "{letters}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_or_the_user_lets_in() {
        let auth = Auth {
            token: "0123456789abcdef".to_owned(),
            users: vec![0],
        };
        let nobody = Peer { user: None };
        assert!(auth.allows(nobody, Some("Bearer 0123456789abcdef")));
        for wrong in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer 0123456789abcdeF"),
            Some("Bearer 0123456789abcdef0"),
            Some("Basic 0123456789abcdef"),
        ] {
            assert!(!auth.allows(nobody, wrong), "{wrong:?}");
        }
        assert!(auth.allows(Peer { user: Some(0) }, None));
        assert!(!auth.allows(Peer { user: Some(1) }, None));
    }

    #[test]
    fn a_token_is_made_once_and_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(token(&path, false).is_err());
        let made = token(&path, true).unwrap();
        assert_eq!(made.len(), 2 * TOKEN_BYTES);
        assert_eq!(token(&path, true).unwrap(), made);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(token(&path, true).is_err());
    }
}
