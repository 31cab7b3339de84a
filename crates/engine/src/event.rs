//! What happened, told to whoever listens; the last events are kept for those who come late.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use ponton_api::event::{Actor, Message};
use ponton_api::filters::Filters;
use tokio::sync::broadcast;

use crate::count::Count;
use crate::error::{Error, Result};
use crate::request::{EventsRequest, Stream};

/// How many events are kept for those who come late: as many as dockerd keeps.
const KEPT: usize = 256;
/// How many events a slow listener may be behind. One that is further behind is cut off: it would miss some
/// without knowing.
const BEHIND: usize = 4096;
/// In how many forms the API prints an event.
const FORMS: usize = 4;

/// Something that happened, as all listeners share it.
#[derive(Debug)]
pub struct Told {
    message: Message,
    printed: [OnceLock<Bytes>; FORMS],
}

impl Told {
    fn new(message: Message) -> Arc<Self> {
        Arc::new(Self { message, printed: Default::default() })
    }

    /// It in print, in the form of this number; `print` is called for the first who wants it so.
    pub fn printed(&self, form: usize, print: impl FnOnce(&Message) -> Bytes) -> Bytes {
        match self.printed.get(form) {
            Some(printed) => printed.get_or_init(|| print(&self.message)).clone(),
            None => print(&self.message),
        }
    }
}

impl Deref for Told {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// The filters that `events` knows.
const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// The event stream of one engine.
pub(crate) struct Bus {
    told: Count,
    kept: Mutex<VecDeque<Arc<Told>>>,
    listeners: broadcast::Sender<Arc<Told>>,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self { told: Count::default(), kept: Mutex::default(), listeners: broadcast::channel(BEHIND).0 }
    }

    /// Tells everybody that `action` happened to the `kind` named `id`.
    pub(crate) fn emit(
        &self,
        kind: &str,
        action: impl Into<String>,
        id: &str,
        attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) {
        let action = action.into();
        let is_container = kind == "container";
        let mut message = Message {
            status: if is_container || kind == "image" { action.clone() } else { String::new() },
            id: if is_container || kind == "image" { id.to_owned() } else { String::new() },
            from: match attributes.get("image") {
                Some(image) if is_container => image.clone(),
                _ => String::new(),
            },
            r#type: kind.to_owned(),
            action,
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        };
        // Sent under the lock: a new listener sees each event either in what was kept, or live.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // No two events have one time, and later ones a later one: whoever asks for those since the last
        // that he has seen gets each once.
        if let Some(last) = kept.back().filter(|last| last.time_nano >= message.time_nano) {
            message.time_nano = last.time_nano.saturating_add(1);
            message.time = message.time_nano / 1_000_000_000;
        }
        let message = Told::new(message);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&message));
        self.told.add(1);
        // Nobody listening is no error.
        let _ = self.listeners.send(message);
    }

    /// How many events there were.
    pub(crate) fn told(&self) -> u64 {
        self.told.get()
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.listeners.receiver_count()
    }

    /// The events that `request` wants; those before `now` only with `since`.
    pub(crate) fn subscribe(&self, request: EventsRequest, now: Timestamp) -> Result<Stream<Arc<Told>>> {
        request.filters.check_known(FILTERS).map_err(|error| Error::invalid(error.to_string()))?;
        let (past, receiver) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let past: VecDeque<_> = match request.since {
                Some(since) => kept.iter().filter(|event| at_or_after(event, since)).cloned().collect(),
                None => VecDeque::new(),
            };
            (past, self.listeners.subscribe())
        };
        let left = request.until.map(|until| {
            let left = std::time::Duration::try_from(until.duration_since(now)).unwrap_or_default();
            tokio::time::Instant::now() + left
        });
        let listening = Listening {
            past,
            receiver,
            filters: request.filters,
            until: request.until,
            left,
            is_cut_off: false,
        };
        Ok(Box::pin(stream::unfold(listening, Listening::next)))
    }
}

struct Listening {
    past: VecDeque<Arc<Told>>,
    receiver: broadcast::Receiver<Arc<Told>>,
    filters: Filters,
    until: Option<Timestamp>,
    left: Option<tokio::time::Instant>,
    /// It was too slow.
    is_cut_off: bool,
}

impl Listening {
    async fn next(mut self) -> Option<(Result<Arc<Told>>, Self)> {
        if self.is_cut_off {
            return None;
        }
        loop {
            let event = match self.past.pop_front() {
                Some(event) => event,
                None => match self.live().await? {
                    Ok(event) => event,
                    Err(error) => {
                        self.is_cut_off = true;
                        return Some((Err(error), self));
                    }
                },
            };
            if self.until.is_some_and(|until| !at_or_before(&event, until)) {
                return None;
            }
            if matches(&self.filters, &event) {
                return Some((Ok(event), self));
            }
        }
    }

    /// The next event that comes.
    async fn live(&mut self) -> Option<Result<Arc<Told>>> {
        let received = match self.left {
            Some(left) => tokio::time::timeout_at(left, self.receiver.recv()).await.ok()?,
            None => self.receiver.recv().await,
        };
        match received {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(Error::failed(
                "send events",
                format!("the listener is too slow, and would have missed {missed} of them"),
            ))),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

fn at_or_after(event: &Message, time: Timestamp) -> bool {
    i128::from(event.time_nano) >= time.as_nanosecond()
}

fn at_or_before(event: &Message, time: Timestamp) -> bool {
    i128::from(event.time_nano) <= time.as_nanosecond()
}

/// Docker's rules: values of one filter are alternatives, different filters must all match.
fn matches(filters: &Filters, event: &Message) -> bool {
    let attributes = &event.actor.attributes;
    let object = |kind: &str| {
        filters.matches(kind, |wanted| {
            event.r#type == kind
                && (event.actor.id == wanted
                    || event.actor.id.starts_with(wanted)
                    || attributes.get("name").is_some_and(|name| name == wanted.trim_start_matches('/')))
        })
    };
    filters.matches("type", |wanted| event.r#type == wanted)
        && filters.matches("scope", |wanted| event.scope == wanted)
        && filters.matches("event", |wanted| {
            // `exec_create: sh` is found as `exec_create`.
            event.action == wanted || event.action.split_once(':').is_some_and(|(action, _)| action == wanted)
        })
        && object("container")
        && object("network")
        && object("volume")
        && object("daemon")
        && filters.matches("image", |wanted| {
            let name = match event.r#type.as_str() {
                "image" => attributes.get("name").map_or(event.actor.id.as_str(), String::as_str),
                _ => attributes.get("image").map_or("", String::as_str),
            };
            event.r#type == "image" && event.actor.id == wanted
                || name == wanted
                || name.split(':').next() == Some(wanted)
        })
        && filters.matches_labels("label", attributes)
        && ["config", "node", "plugin", "secret", "service"]
            .iter()
            .all(|kind| filters.matches(kind, |_| event.r#type == *kind))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn bus() -> Bus {
        let bus = Bus::new();
        let attributes =
            |name: &str| BTreeMap::from([("name".into(), name.into()), ("image".into(), "busybox".into())]);
        bus.emit("container", "create", "aa11", attributes("web"), at(10));
        bus.emit("container", "exec_create: sh", "bb22", attributes("db"), at(20));
        bus.emit("image", "tag", "sha256:1", attributes("busybox:latest"), at(30));
        bus
    }

    async fn actions(bus: &Bus, filters: &str, since: i64, until: i64) -> Vec<String> {
        let request = EventsRequest {
            since: Some(at(since)),
            until: Some(at(until)),
            filters: Filters::parse(filters).unwrap(),
        };
        bus.subscribe(request, at(100))
            .unwrap()
            .map(|event| event.unwrap().action.clone())
            .collect::<Vec<_>>()
            .await
    }

    #[tokio::test]
    async fn kept_events_are_replayed_between_two_times() {
        let bus = bus();
        assert_eq!(actions(&bus, "", 0, 99).await.len(), 3);
        assert_eq!(actions(&bus, "", 11, 99).await, ["exec_create: sh", "tag"]);
        assert_eq!(actions(&bus, "", 0, 20).await, ["create", "exec_create: sh"]);
    }

    #[tokio::test]
    async fn filters_choose() {
        let bus = bus();
        let cases = [
            (r#"{"type":["image"]}"#, vec!["tag"]),
            (r#"{"event":["exec_create"]}"#, vec!["exec_create: sh"]),
            (r#"{"container":["web"]}"#, vec!["create"]),
            (r#"{"container":["aa"],"event":["die"]}"#, vec![]),
            (r#"{"image":["busybox"]}"#, vec!["create", "exec_create: sh", "tag"]),
            (r#"{"label":["name=db"]}"#, vec!["exec_create: sh"]),
        ];
        for (filters, expected) in cases {
            assert_eq!(actions(&bus, filters, 0, 99).await, expected, "{filters}");
        }
        let unknown =
            EventsRequest { filters: Filters::parse(r#"{"x":["y"]}"#).unwrap(), ..EventsRequest::default() };
        assert!(bus.subscribe(unknown, at(0)).is_err());
    }

    #[tokio::test]
    async fn a_listener_that_is_too_slow_is_told_so_and_cut_off() {
        let bus = Bus::new();
        let mut slow = bus.subscribe(EventsRequest::default(), at(0)).unwrap();
        for _ in 0..=BEHIND {
            bus.emit("container", "start", "aa", BTreeMap::new(), at(1));
        }
        let error = slow.next().await.unwrap().unwrap_err();
        assert!(error.message.contains("too slow, and would have missed 1"), "{}", error.message);
        assert!(slow.next().await.is_none());
    }

    #[tokio::test]
    async fn times_tell_events_apart() {
        let bus = Bus::new();
        for second in [5, 5, 4] {
            bus.emit("container", "start", "aa", BTreeMap::new(), at(second));
        }
        let kept = bus.kept.lock().unwrap();
        let times: Vec<_> = kept.iter().map(|event| event.time_nano - 5_000_000_000).collect();
        assert_eq!(times, [0, 1, 2]);
    }

    #[tokio::test]
    async fn listeners_hear_what_comes() {
        let bus = Bus::new();
        let mut heard = bus.subscribe(EventsRequest::default(), at(0)).unwrap();
        assert_eq!(bus.listeners(), 1);
        bus.emit("container", "start", "aa", BTreeMap::new(), at(1));
        let event = heard.next().await.unwrap().unwrap();
        assert_eq!((event.action.as_str(), event.status.as_str()), ("start", "start"));
    }
}
