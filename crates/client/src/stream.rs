use std::io;
use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use http_body_util::BodyDataStream;
use ponton_api::json;
use serde::de::DeserializeOwned;

use crate::{Body, Error};

/// A longer message is not one of Docker's.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// An answer that is a sequence of JSON values: progress, events, statistics.
#[derive(Debug)]
pub struct JsonStream<T> {
    path: String,
    body: BodyDataStream<Body>,
    buffer: BytesMut,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonStream<T> {
    pub(crate) fn new(path: String, body: BodyDataStream<Body>) -> Self {
        Self { path, body, buffer: BytesMut::new(), kind: PhantomData }
    }

    /// The next value; `None` at the end of the answer.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(value) = self.decode()? {
                return Ok(Some(value));
            }
            if self.buffer.len() > MAX_MESSAGE_BYTES {
                return Err(self.broken("a message is too long"));
            }
            match self.body.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(source)) => return Err(Error::Read { path: self.path.clone(), source }),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(self.broken("the last message is cut off")),
            }
        }
    }

    fn decode(&mut self) -> Result<Option<T>, Error> {
        let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<serde_json::Value>();
        let value = match values.next() {
            None => return Ok(None),
            Some(Ok(value)) => value,
            Some(Err(source)) if source.is_eof() => return Ok(None),
            Some(Err(source)) => {
                let source = json::Error::Syntax(source.to_string());
                return Err(Error::Decode { path: self.path.clone(), source });
            }
        };
        let used = values.byte_offset();
        self.buffer.advance(used);
        json::from_value(&value).map(Some).map_err(|source| Error::Decode { path: self.path.clone(), source })
    }

    fn broken(&self, reason: &'static str) -> Error {
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, reason);
        Error::Read { path: self.path.clone(), source }
    }
}
