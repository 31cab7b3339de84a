//! Whom a client trusts: the host's authorities, those of `certs.d`, and who needs no trust.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Uri;
use ipnet::IpNet;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use crate::error::{Error, Result};

/// For how long what was read of certificates is taken as it is: they may change while a daemon runs.
const KEPT: Duration = Duration::from_secs(60);

/// Registries that may be spoken to without encryption or verification.
#[derive(Debug)]
pub(crate) struct Insecure {
    hosts: Vec<String>,
    networks: Vec<IpNet>,
}

impl Insecure {
    pub(crate) fn parse(entries: &[String]) -> Result<Self> {
        let mut insecure = Self { hosts: Vec::new(), networks: Vec::new() };
        for entry in entries {
            let host = entry.strip_prefix("http://").or(entry.strip_prefix("https://")).unwrap_or(entry);
            let host = host.trim_end_matches('/');
            if let Ok(network) = host.parse() {
                insecure.networks.push(network);
            } else if !host.is_empty() && !host.contains(['/', '@']) {
                insecure.hosts.push(host.to_ascii_lowercase());
            } else {
                let reason = "is neither a host nor a network".to_owned();
                return Err(Error::Config { what: format!("insecure registry {entry:?}"), reason });
            }
        }
        Ok(insecure)
    }

    /// Whether the server of a URL is among them. Names are looked up only if networks are configured.
    pub(crate) async fn contains(&self, url: &Uri) -> bool {
        let (Some(host), Some(authority)) = (url.host(), url.authority()) else { return false };
        let named = |name: &str| self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
        if is_loopback(host) || named(authority.as_str()) || named(host) {
            return true;
        }
        if self.networks.is_empty() {
            return false;
        }
        let within = |address: IpAddr| self.networks.iter().any(|network| network.contains(&address));
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => within(address),
            Err(_) => tokio::net::lookup_host((host, 0))
                .await
                .is_ok_and(|mut found| found.any(|address| within(address.ip()))),
        }
    }
}

/// Whether a host's name means this host.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.is_ok_and(|address| address.is_loopback()) || host.eq_ignore_ascii_case("localhost")
}

/// Configurations of TLS, one for each server.
#[derive(Debug)]
pub(crate) struct Trust {
    directories: Vec<PathBuf>,
    insecure: Arc<Insecure>,
    host_roots: Mutex<Option<(Instant, Arc<RootCertStore>)>>,
    configs: Mutex<HashMap<String, (Instant, Arc<ClientConfig>)>>,
}

impl Trust {
    pub(crate) fn new(directories: Vec<PathBuf>, insecure: Arc<Insecure>) -> Self {
        Self { directories, insecure, host_roots: Mutex::default(), configs: Mutex::default() }
    }

    /// How to speak TLS with the server of a URL.
    pub(crate) async fn config(self: &Arc<Self>, url: &Uri) -> Result<Arc<ClientConfig>, String> {
        let authority = url.authority().map(|authority| authority.as_str().to_ascii_lowercase());
        let authority = authority.ok_or("the URL has no host")?;
        if let Some((made, config)) = lock(&self.configs).get(&authority)
            && made.elapsed() < KEPT
        {
            return Ok(config.clone());
        }
        let insecure = self.insecure.contains(url).await;
        let (this, name) = (self.clone(), authority.clone());
        let config = tokio::task::spawn_blocking(move || this.build(&name, insecure));
        let config = Arc::new(config.await.map_err(|error| error.to_string())??);
        let mut configs = lock(&self.configs);
        configs.retain(|_, (made, _)| made.elapsed() < KEPT);
        configs.insert(authority, (Instant::now(), config.clone()));
        Ok(config)
    }

    fn build(&self, authority: &str, insecure: bool) -> Result<ClientConfig, String> {
        let own = self.directories.iter().map(|at| Certificates::read(at, authority));
        let own = own.collect::<Result<Vec<_>, _>>()?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let authorities: Vec<_> = own.iter().flat_map(|own| own.authorities.clone()).collect();
        let builder = if insecure && authorities.is_empty() {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            let mut roots = self.host_roots().as_ref().clone();
            roots.add_parsable_certificates(authorities.iter().cloned());
            if roots.is_empty() {
                return Err("this host has no certificates of authorities to trust: install the package \
                            ca-certificates, or name a file of them in SSL_CERT_FILE"
                    .to_owned());
            }
            let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
            let chains = chains.build().map_err(|error| error.to_string())?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Known { chains, authorities }))
        };
        match own.into_iter().find_map(|own| own.client) {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("client certificate for {authority}: {error}")),
        }
    }

    fn host_roots(&self) -> Arc<RootCertStore> {
        let mut kept = lock(&self.host_roots);
        if let Some((read, roots)) = &*kept
            && read.elapsed() < KEPT
        {
            return roots.clone();
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let roots = Arc::new(roots);
        *kept = Some((Instant::now(), roots.clone()));
        roots
    }
}

/// What one folder of `certs.d` has for a server.
#[derive(Debug, Default)]
struct Certificates {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Certificates {
    /// Reads the folder `host:port`, or `host` for the usual port.
    fn read(directory: &Path, authority: &str) -> Result<Self, String> {
        let mut found = Self::default();
        // A name from a redirect must not lead out of the directory.
        if authority.starts_with('.') || authority.contains('/') {
            return Ok(found);
        }
        let usual = match authority.strip_suffix(":443") {
            Some(host) => host.to_owned(),
            None => format!("{authority}:443"),
        };
        for folder in [directory.join(authority), directory.join(usual)] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            files.sort();
            for file in files {
                found.add(&file).map_err(|reason| format!("{}: {reason}", file.display()))?;
            }
        }
        Ok(found)
    }

    fn add(&mut self, file: &Path) -> Result<(), String> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => self.authorities.extend(chain(file)?),
            Some("cert") => {
                let key = file.with_extension("key");
                let key = PrivateKeyDer::from_pem_file(&key)
                    .map_err(|error| format!("its key {}: {error}", key.display()))?;
                self.client.get_or_insert((chain(file)?, key));
            }
            _ => {}
        }
        Ok(())
    }
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    certificates.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Accepts what an authority has signed, and also the certificate of an authority itself, if it is for this
/// server: it is what `openssl req -x509` makes, and users copy into `certs.d`.
#[derive(Debug)]
struct Known {
    chains: Arc<WebPkiServerVerifier>,
    authorities: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified = self.chains.verify_server_cert(server, others, name, ocsp, now);
        match verified {
            // This comes after its time was looked at.
            Err(TlsError::InvalidCertificate(CertificateError::Other(reason)))
                if reason.to_string() == "CaUsedAsEndEntity" && self.authorities.contains(server) =>
            {
                verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Accepts every certificate: for registries that are configured as insecure.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_insecure(entries: &[&str], url: &str) -> bool {
        let entries: Vec<_> = entries.iter().map(ToString::to_string).collect();
        Insecure::parse(&entries).unwrap().contains(&url.parse().unwrap()).await
    }

    #[tokio::test]
    async fn insecure_are_loopback_and_what_is_configured() {
        for url in ["http://localhost:5000/", "https://127.1.2.3/", "https://[::1]:5000/"] {
            assert!(is_insecure(&[], url).await, "{url}");
        }
        for (entry, url, expected) in [
            ("reg.example:5000", "https://reg.example:5000/", true),
            ("reg.example:5000", "https://reg.example:5001/", false),
            ("reg.example:5000", "https://reg.example/", false),
            ("reg.example", "https://REG.example:5000/", true),
            ("http://reg.example/", "https://reg.example/", true),
            ("10.0.0.0/8", "https://10.1.2.3:5000/", true),
            ("10.0.0.0/8", "https://11.1.2.3:5000/", false),
            ("fd00::/8", "https://[fd00::1]:5000/", true),
            ("reg.example", "https://xreg.example/", false),
        ] {
            assert_eq!(is_insecure(&[entry], url).await, expected, "{entry} {url}");
        }
        assert!(Insecure::parse(&["a/b".to_owned()]).is_err());
    }

    #[test]
    fn no_name_leads_out_of_the_directory_of_certificates() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bad.crt"), "-----BEGIN CERTIFICATE-----\n!").unwrap();
        let inner = directory.path().join("certs.d");
        std::fs::create_dir(&inner).unwrap();
        assert!(Certificates::read(&inner, "..").unwrap().authorities.is_empty());
        assert!(Certificates::read(directory.path(), "certs.d").unwrap().authorities.is_empty());
        std::fs::write(inner.join("client.cert"), "").unwrap();
        let error = Certificates::read(directory.path(), "certs.d:443").unwrap_err();
        assert!(error.contains("client.cert") && error.contains("client.key"), "{error}");
    }
}
