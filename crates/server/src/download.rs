//! Bodies that are elsewhere: `fromSrc=https://…`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ponton_engine::request::ByteSource;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::error::{Error, Result};
use crate::tls::Tls;

/// How often a server may send us elsewhere.
const MAX_REDIRECTS: usize = 10;
/// How long a server may take to be reached and to begin its answer, and to send more of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of what is at a URL (without a scheme: of a host and path); read no faster than it is used.
pub(crate) async fn download(url: &str) -> Result<ByteSource> {
    Download { url, tls: Tls::of_host() }.start().await
}

/// One download: the URL that was asked for, and whom it may be had from.
struct Download<'a> {
    url: &'a str,
    tls: Tls,
}

impl Download<'_> {
    async fn start(&self) -> Result<ByteSource> {
        let url = self.url;
        let absolute = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let mut uri: Uri =
            absolute.parse().map_err(|error| Error::invalid(format!("download {url}: {error}")))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = tokio::time::timeout(PATIENCE, self.request(&uri))
                .await
                .map_err(|_| failed(&uri, "the server does not answer"))??;
            match response.status() {
                status if status.is_redirection() => uri = redirected(&uri, &response)?,
                StatusCode::OK => return Ok(chunks(response.into_body())),
                status => return Err(failed(&uri, format!("the server answers {status}"))),
            }
        }
        Err(failed(url, "too many redirects"))
    }

    async fn request(&self, uri: &Uri) -> Result<Response<Incoming>> {
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(Error::invalid(format!("download {uri}: not an http or https URL"))),
        };
        let Some(host) = uri.host() else {
            return Err(Error::invalid(format!("download {uri}: no host in the URL")));
        };
        let host = host.trim_matches(['[', ']']);
        let address = (host, uri.port_u16().unwrap_or(default_port));
        let stream = TcpStream::connect(address).await.map_err(|error| failed(uri, error))?;
        if default_port == 443 {
            let stream = self.tls.connect(host, stream).await.map_err(|error| failed(uri, error))?;
            get(uri, stream).await
        } else {
            get(uri, stream).await
        }
    }
}

fn failed(url: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
    Error::internal(format!("download {url}: {cause}"))
}

async fn get(
    uri: &Uri,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Response<Incoming>> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(uri, error))?;
    // Ends when the answer's body was read or dropped.
    tokio::spawn(connection);
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, host_header(uri))
        .header(USER_AGENT, crate::answer::SERVER)
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(uri, error))?;
    sender.send_request(request).await.map_err(|error| failed(uri, error))
}

/// Host and port, without the name and password that may stand before them.
fn host_header(uri: &Uri) -> &str {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// A body as it comes. A server that stops sending does not keep us for ever.
fn chunks(body: Incoming) -> ByteSource {
    let frames = stream::unfold(Some(body), |body| async {
        let mut body = body?;
        match tokio::time::timeout(PATIENCE, body.frame()).await {
            Ok(None) => None,
            Ok(Some(Ok(frame))) => Some((Ok(frame.into_data().unwrap_or_default()), Some(body))),
            Ok(Some(Err(error))) => Some((Err(std::io::Error::other(error)), None)),
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
        }
    });
    frames.boxed()
}

/// Where an answer sends us: another URL, or a path of the same host.
fn redirected(from: &Uri, response: &Response<Incoming>) -> Result<Uri> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or("http");
    let absolute = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", host_header(from))
    } else {
        location.to_owned()
    };
    let to: Uri =
        absolute.parse().map_err(|error| failed(from, format!("redirect to {location:?}: {error}")))?;
    if scheme == "https" && to.scheme_str() == Some("http") {
        return Err(failed(from, format!("redirect to {location:?}: it leads from https to http")));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;

    use super::*;

    /// A server that gives these answers, one a connection; what it is asked for is returned.
    async fn serve(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                asked.push(request.lines().next().unwrap_or_default().to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (address, task)
    }

    /// An authority, and a server on 127.0.0.1 with its certificate for `name` that gives one answer.
    async fn serve_encrypted(name: &str, answer: String) -> (u16, Tls) {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(authority, key);
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us goes away here.
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        (port, Tls::of(vec![root]))
    }

    async fn text(url: &str) -> Result<String, String> {
        text_with(url, Tls::of(vec![])).await
    }

    async fn text_with(url: &str, tls: Tls) -> Result<String, String> {
        let mut chunks = Download { url, tls }.start().await.map_err(|error| error.message)?;
        let mut text = String::new();
        while let Some(chunk) = chunks.next().await {
            text.push_str(&String::from_utf8_lossy(&chunk.map_err(|error| error.to_string())?));
        }
        Ok(text)
    }

    #[tokio::test]
    async fn encrypted_servers_are_trusted_by_their_authority() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        let (port, tls) = serve_encrypted("localhost", answer.into()).await;
        assert_eq!(text_with(&format!("https://localhost:{port}/a"), tls).await.as_deref(), Ok("body"));
        let (port, tls) = serve_encrypted("127.0.0.1", answer.into()).await;
        assert_eq!(text_with(&format!("https://127.0.0.1:{port}/a"), tls).await.as_deref(), Ok("body"));
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_certificate_is_told() {
        let (port, _) = serve_encrypted("localhost", String::new()).await;
        let (_, stranger) = serve_encrypted("stranger", String::new()).await;
        let url = format!("https://localhost:{port}/a");
        let error = text_with(&url, stranger).await.unwrap_err();
        let begin = format!("download {url}: the server's certificate is not accepted: ");
        assert!(error.starts_with(&begin) && error.contains("UnknownIssuer"), "{error}");
        let (port, tls) = serve_encrypted("elsewhere.example", String::new()).await;
        let error = text_with(&format!("https://localhost:{port}/a"), tls).await.unwrap_err();
        assert!(error.contains("not valid for name \"localhost\""), "{error}");
        let (port, _) = serve_encrypted("localhost", String::new()).await;
        let error = text(&format!("https://localhost:{port}/a")).await.unwrap_err();
        assert!(error.contains("SSL_CERT_FILE"), "{error}");
        let (address, _server) = serve(vec!["not encrypted at all".into()]).await;
        let (_, tls) = serve_encrypted("localhost", String::new()).await;
        let error = text_with(&format!("https://{address}/a"), tls).await.unwrap_err();
        assert!(error.starts_with(&format!("download https://{address}/a: ")), "{error}");
    }

    #[tokio::test]
    async fn a_redirect_keeps_the_encryption() {
        let answer = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let (port, tls) = serve_encrypted("localhost", answer.into()).await;
        let error = text_with(&format!("https://localhost:{port}/a"), tls).await.unwrap_err();
        assert!(error.ends_with("it leads from https to http"), "{error}");
    }

    #[tokio::test]
    async fn redirects_are_bounded() {
        let answer = "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
        let (address, server) = serve(vec![answer.into(); MAX_REDIRECTS + 1]).await;
        assert_eq!(text(&address).await, Err(format!("download {address}: too many redirects")));
        assert_eq!(server.await.unwrap().len(), MAX_REDIRECTS + 1);
    }

    #[tokio::test]
    async fn redirects_are_followed() {
        let (address, server) = serve(vec![
            "HTTP/1.1 302 Found\r\nLocation: /b?c\r\nContent-Length: 0\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody".into(),
        ])
        .await;
        assert_eq!(text(&format!("{address}/a")).await.as_deref(), Ok("body"));
        assert_eq!(server.await.unwrap(), ["GET /a HTTP/1.1", "GET /b?c HTTP/1.1"]);
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_told() {
        let (address, _server) =
            serve(vec!["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into()]).await;
        let url = format!("http://{address}/a");
        assert_eq!(text(&url).await, Err(format!("download {url}: the server answers 404 Not Found")));
        assert!(text("ftp://example.org/a").await.unwrap_err().contains("not an http or https URL"));
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_an_error() {
        let (address, _server) = serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody".into()]).await;
        assert!(text(&address).await.is_err());
    }
}
