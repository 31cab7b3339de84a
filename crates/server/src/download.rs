//! Bodies that are elsewhere: `fromSrc=http://…`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyStream, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ponton_engine::request::ByteSource;
use tokio::net::TcpStream;

use crate::error::{Error, Result};

/// How often a server may send us elsewhere.
const MAX_REDIRECTS: usize = 10;
/// How long a server may take to be reached and to begin its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of what is at a URL (without a scheme: of a host and path); read no faster than it is used.
pub(crate) async fn download(url: &str) -> Result<ByteSource> {
    let absolute = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let mut uri: Uri =
        absolute.parse().map_err(|error| Error::invalid(format!("download {url}: {error}")))?;
    for _ in 0..=MAX_REDIRECTS {
        let response = tokio::time::timeout(PATIENCE, request(&uri))
            .await
            .map_err(|_| failed(url, "the server does not answer"))??;
        match response.status() {
            status if status.is_redirection() => uri = redirected(&uri, &response)?,
            StatusCode::OK => {
                let chunks = BodyStream::new(response.into_body()).filter_map(|frame| async {
                    match frame {
                        Ok(frame) => frame.into_data().ok().map(Ok),
                        Err(error) => Some(Err(std::io::Error::other(error))),
                    }
                });
                return Ok(Box::pin(chunks));
            }
            status => return Err(failed(url, format!("the server answers {status}"))),
        }
    }
    Err(failed(url, "too many redirects"))
}

fn failed(url: &str, cause: impl std::fmt::Display) -> Error {
    Error::internal(format!("download {url}: {cause}"))
}

async fn request(uri: &Uri) -> Result<Response<Incoming>> {
    let url = uri.to_string();
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(Error::not_implemented(format!(
                "downloading {url} over https is not implemented: download it and import the file"
            )));
        }
        _ => return Err(Error::invalid(format!("download {url}: not an http URL"))),
    }
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return Err(Error::invalid(format!("download {url}: no host in the URL")));
    };
    let address = (host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&url, error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&url, error))?;
    // Ends when the answer's body was read or dropped.
    tokio::spawn(connection);
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, authority.as_str())
        .header(USER_AGENT, crate::answer::SERVER)
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&url, error))?;
    sender.send_request(request).await.map_err(|error| failed(&url, error))
}

/// Where an answer sends us: another URL, or a path of the same host.
fn redirected(from: &Uri, response: &Response<Incoming>) -> Result<Uri> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let absolute = if location.starts_with('/') {
        let authority = from.authority().map_or("", |authority| authority.as_str());
        format!("http://{authority}{location}")
    } else {
        location.to_owned()
    };
    absolute.parse().map_err(|error| failed(&from.to_string(), format!("redirect to {location:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

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

    async fn text(url: &str) -> Result<String, String> {
        let mut chunks = download(url).await.map_err(|error| error.message)?;
        let mut text = String::new();
        while let Some(chunk) = chunks.next().await {
            text.push_str(&String::from_utf8_lossy(&chunk.map_err(|error| error.to_string())?));
        }
        Ok(text)
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
        let error = text("https://example.org/a").await.unwrap_err();
        assert!(error.contains("over https is not implemented"), "{error}");
        assert!(text("ftp://example.org/a").await.unwrap_err().contains("not an http URL"));
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_an_error() {
        let (address, _server) = serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody".into()]).await;
        assert!(text(&address).await.is_err());
    }
}
