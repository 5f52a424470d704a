//! TLS of who asks from elsewhere. The certificate can be another one while connections go on.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::limit::{Connection, Limited};
use crate::serve::trust;

/// A handshake ends within this time, so that who says nothing does not keep a place.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A certificate with those that it follows from, and its key.
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// That of two PEM files.
    ///
    /// # Errors
    /// One cannot be read, or they do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let chain = trust::certificates(certificate)?;
        let shown = key.display();
        let der = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("cannot read a private key in {shown}"))?;
        let certified = CertifiedKey::from_der(chain, der, &trust::provider());
        let certified = certified.with_context(|| {
            format!(
                "the key in {shown} is not one for the first certificate in {}",
                certificate.display()
            )
        })?;
        Ok(Self(Arc::new(certified)))
    }
}

/// Who we are now.
pub struct Certificate(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

impl Certificate {
    /// This one.
    pub fn new(identity: Identity) -> Self {
        Self(RwLock::new(identity.0))
    }

    /// Another one, for handshakes from now on.
    pub fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity.0;
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&now))
    }
}

/// A listener whose connections have shaken hands.
pub struct Encrypted {
    listener: Limited<TcpListener>,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(Io, SocketAddr)>>,
}

type Io = TlsStream<Connection<TcpStream>>;

impl Encrypted {
    /// TLS 1.2 and 1.3, with this certificate.
    ///
    /// # Errors
    /// The cryptography lacks what TLS needs.
    pub fn new(listener: Limited<TcpListener>, certificate: Arc<Certificate>) -> Result<Self> {
        let mut config = ServerConfig::builder_with_provider(trust::provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: JoinSet::new(),
        })
    }

    fn shake_hands(&mut self, io: Connection<TcpStream>, address: SocketAddr) {
        let handshake = self.acceptor.accept(io);
        self.handshakes.spawn(async move {
            let done = timeout(HANDSHAKE, handshake).await;
            // Who cannot, or will not, is told by TLS itself.
            Some((done.ok()?.ok()?, address))
        });
    }
}

impl Listener for Encrypted {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (io, address) = self.listener.accept() => self.shake_hands(io, address),
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = done {
                        return accepted;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
