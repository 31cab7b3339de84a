//! A JSON array written while its items are made.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;

/// What is written at once: enough that a client is not woken for a few lines, and less than a socket holds.
const CHUNK: usize = 64 << 10;

/// An array that is being written, with the line end that Go's encoder writes.
pub(crate) struct Array<T> {
    items: Pin<Box<dyn Stream<Item = T> + Send>>,
    /// Items that are written already.
    written: usize,
    is_whole: bool,
}

impl<T: Serialize + 'static> Array<T> {
    /// Of these items.
    pub(crate) fn new(items: impl Stream<Item = T> + Send + 'static) -> Self {
        Self { items: Box::pin(items), written: 0, is_whole: false }
    }

    /// Whether there is no chunk any more.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The next piece of text.
    pub(crate) async fn chunk(&mut self) -> Bytes {
        let mut text = Vec::with_capacity(CHUNK + CHUNK / 8);
        if self.written == 0 {
            text.push(b'[');
        }
        while text.len() < CHUNK {
            let Some(item) = self.items.next().await else {
                text.extend(b"]\n");
                self.is_whole = true;
                break;
            };
            if self.written > 0 {
                text.push(b',');
            }
            // Only a map with keys that aren't strings fails, and the API has none.
            if serde_json::to_writer(&mut text, &item).is_err() {
                text.extend(b"null");
            }
            self.written += 1;
        }
        text.into()
    }

    /// The other pieces. The task yields before each, so that what was made before is sent.
    pub(crate) fn rest(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut array| async move {
            if array.is_whole {
                return None;
            }
            tokio::task::yield_now().await;
            let chunk = array.chunk().await;
            Some((chunk, array))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(items: Vec<String>) -> (usize, Vec<u8>) {
        let mut array = Array::new(stream::iter(items));
        let first = array.chunk().await;
        let rest: Vec<Bytes> = array.rest().collect().await;
        (1 + rest.len(), [&first[..], &rest.concat()].concat())
    }

    #[tokio::test]
    async fn an_array_of_any_length_is_what_it_is_in_one_piece() {
        for count in [0, 1, 2, 1000, 20_000] {
            let items: Vec<String> = (0..count).map(|number| format!("item \"{number}\"")).collect();
            let whole = format!("{}\n", serde_json::to_string(&items).unwrap());
            let (chunks, text) = written(items).await;
            assert_eq!(String::from_utf8(text).unwrap(), whole);
            assert_eq!(chunks, whole.len() / CHUNK + 1, "{count} items of {} bytes", whole.len());
        }
    }
}
