//! Encrypted connections to servers whose certificates this host trusts.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
#[cfg(test)]
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Why there is no encrypted connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0:?} is no name of a server")]
    Name(String),
    #[error(
        "this host has no certificates of authorities to trust: install the package ca-certificates, or name \
         a file of them in the daemon's SSL_CERT_FILE"
    )]
    NoAuthorities,
    #[error("the server's certificate is not accepted: {0}")]
    Certificate(tokio_rustls::rustls::Error),
    #[error(transparent)]
    Connection(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// Whom to trust.
pub(crate) struct Tls(Authorities);

enum Authorities {
    /// Those of the system's store, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`, read when needed: the store
    /// may change while the daemon runs.
    OfHost,
    #[cfg(test)]
    These(Vec<CertificateDer<'static>>),
}

impl Tls {
    /// Trusts whom the host trusts.
    pub(crate) fn of_host() -> Self {
        Self(Authorities::OfHost)
    }

    /// Trusts these authorities alone.
    #[cfg(test)]
    pub(crate) fn of(authorities: Vec<CertificateDer<'static>>) -> Self {
        Self(Authorities::These(authorities))
    }

    /// Encrypts a connection to the server `host`, a name or an address.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Name(host.to_owned()))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots().await?)
            .with_no_client_auth();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(|error| match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(tls @ tokio_rustls::rustls::Error::InvalidCertificate(_)) => Error::Certificate(tls.clone()),
            _ => Error::Connection(error),
        })
    }

    async fn roots(&self) -> Result<RootCertStore, Error> {
        let authorities = match &self.0 {
            Authorities::OfHost => {
                let load = || rustls_native_certs::load_native_certs().certs;
                tokio::task::spawn_blocking(load).await.map_err(io::Error::other)?
            }
            #[cfg(test)]
            Authorities::These(authorities) => authorities.clone(),
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        if roots.is_empty() { Err(Error::NoAuthorities) } else { Ok(roots) }
    }
}
