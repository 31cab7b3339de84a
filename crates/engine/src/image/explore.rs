//! What Docker's API has not: looking into images, checking the store, making several layers one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ponton_api::check::{CheckReport, Problem};
use ponton_api::explore::Exploration;
use ponton_api::stream::JsonMessage;
use ponton_image::{CheckProgress, Report, SquashOptions};
use tokio::sync::mpsc;

use super::{progress, target};
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::request::{SquashRequest, Stream};
use crate::stream;

/// How often a check tells how far it is.
const NEWS_INTERVAL: Duration = Duration::from_millis(100);

impl Engine {
    /// An image, layer by layer; with all files where they are wanted.
    pub async fn image_explore(self: &Arc<Self>, name: &str, files: bool) -> Result<Exploration> {
        let (images, name) = (self.images.clone(), name.to_owned());
        blocking(move || Ok(images.explore(&name, files)?)).await
    }

    /// Makes an image with the same files in fewer layers; answers its id.
    pub async fn image_squash(self: &Arc<Self>, request: SquashRequest) -> Result<String> {
        let reference = target(request.reference.as_deref())?;
        let name = reference.as_ref().map(ponton_oci::Reference::familiar);
        let options = SquashOptions {
            from: request.from.filter(|from| !from.is_empty()),
            reference,
            message: String::new(),
            created: Timestamp::now().to_string(),
        };
        let images = self.images.clone();
        let id = blocking(move || Ok(images.squash(&request.image, &options)?)).await?.to_string();
        if let Some(name) = name {
            self.image_event("tag", &id, &name);
        }
        Ok(id)
    }

    /// Compares all that is stored with its digests; progress as it comes, and last the report.
    pub async fn image_check(self: &Arc<Self>, repair: bool) -> Result<Stream<JsonMessage>> {
        let (sender, receiver) = mpsc::channel(64);
        let images = self.images.clone();
        tokio::task::spawn_blocking(move || {
            let mut told = None::<Instant>;
            let mut tell = |news: CheckProgress| {
                if told.is_some_and(|told| told.elapsed() < NEWS_INTERVAL) {
                    return;
                }
                told = Some(Instant::now());
                let message = progress::bytes(news.object, "Checking", news.current, news.total);
                let _ = sender.blocking_send(Ok(message));
            };
            let last = images.check(repair, &mut tell).map(|report| JsonMessage {
                aux: serde_json::to_value(api_report(report)).ok(),
                ..JsonMessage::default()
            });
            let _ = sender.blocking_send(last.map_err(Into::into));
        });
        stream::begun(stream::from_channel(receiver)).await
    }
}

fn api_report(report: Report) -> CheckReport {
    let problem = |problem: ponton_image::Problem| {
        let (kind, id) = problem.object.split_once(' ').unwrap_or(("record", &problem.object));
        let message = match problem.remedy.as_str() {
            "" => problem.what.clone(),
            remedy => format!("{}: {remedy}", problem.what),
        };
        Problem { kind: kind.to_owned(), id: id.to_owned(), message, repaired: problem.repaired }
    };
    CheckReport {
        images: report.images as u64,
        layers: report.layers as u64,
        blobs: report.blobs as u64,
        bytes: report.bytes,
        problems: report.problems.into_iter().map(problem).collect(),
    }
}
