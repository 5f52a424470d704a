//! Whose certificates are believed by who connects with TLS: those that the system trusts, or
//! those of a file.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The cryptography of both sides.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificates of a PEM file, in its order; one at least.
///
/// # Errors
/// It cannot be read, or has none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = file.display();
    let cannot = || format!("cannot read certificates in {shown}");
    let pem = std::fs::read(file).with_context(cannot)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.with_context(cannot)?;
    ensure!(
        !certificates.is_empty(),
        "there is no certificate in {shown}"
    );
    Ok(certificates)
}

/// Nobody is believed: for who speaks without TLS.
///
/// # Errors
/// The cryptography lacks what TLS needs.
pub fn nobody() -> Result<ClientConfig> {
    believing(RootCertStore::empty())
}

/// Who has a certificate of the file's, or one that these signed; without a file, of those that
/// the system trusts.
///
/// # Errors
/// There are none, or they cannot be read.
pub fn known(file: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file {
        for certificate in certificates(file)? {
            roots
                .add(certificate)
                .with_context(|| format!("cannot believe a certificate in {}", file.display()))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        ensure!(
            !roots.is_empty(),
            "the system trusts no certificate: install ca-certificates, or name a file of them"
        );
    }
    believing(roots)
}

fn believing(roots: RootCertStore) -> Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
