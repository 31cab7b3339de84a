//! What containers use, for those who watch: one sampler reads all watched containers once a second, however
//! many watch them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::stream;
use ponton_api::container::Stats;
use tokio::sync::watch;

use super::usage::{self, Files, HostNow};
use super::{Container, View};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::request::Stream;

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Threads that send samples wake up for so many, not for each; all of them together would take much memory.
const TOLD_TOGETHER: usize = 32;

/// The containers that are watched, and who watches them.
#[derive(Default)]
pub(crate) struct Sampler {
    series: Mutex<HashMap<String, Weak<Series>>>,
}

/// The samples of one container; they end with the last who holds this.
struct Series {
    container: Arc<Container>,
    files: Mutex<Option<Files>>,
    /// `None` before the first.
    latest: watch::Sender<Option<Arc<Stats>>>,
}

impl Engine {
    /// What a container uses: one sample, or one a second. `one_shot` does not wait for a first sample to
    /// compare with.
    pub async fn stats(
        self: &Arc<Self>,
        name: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<Stream<Arc<Stats>>> {
        if stream && one_shot {
            return Err(Error::invalid("cannot have stream=true and one-shot=true"));
        }
        let container = self.find(name)?;
        let series = if stream { self.watched(&container) } else { Series::of(container) };
        if !stream && !one_shot {
            // The one sample that is told needs one to compare with.
            Arc::clone(&series).sample(self).await?;
            if series.container.view().life.is_running() {
                tokio::time::sleep(INTERVAL).await;
            }
        }
        if !stream || series.latest.borrow().is_none() {
            Arc::clone(&series).sample(self).await?;
        }
        let samples = series.latest.subscribe();
        let listening = Listening { series, samples, begun: false, streams: stream };
        Ok(Box::pin(stream::unfold(listening, Listening::next)))
    }

    /// The series of a container that somebody watches; the sampler is started for the first.
    fn watched(self: &Arc<Self>, container: &Arc<Container>) -> Arc<Series> {
        let mut all = self.sampler.lock();
        if let Some(series) = all.get(&container.id).and_then(Weak::upgrade) {
            return series;
        }
        if all.is_empty() {
            tokio::spawn(sample_all(Arc::downgrade(self)));
        }
        let series = Series::of(Arc::clone(container));
        all.insert(container.id.clone(), Arc::downgrade(&series));
        series
    }
}

impl Sampler {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Series>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that somebody still watches; the others are forgotten. There is a sampler as long as one is
    /// remembered.
    fn watched(&self) -> Vec<Arc<Series>> {
        let mut watched = Vec::new();
        self.lock().retain(|_, series| match series.upgrade() {
            Some(series) => {
                watched.push(series);
                true
            }
            None => false,
        });
        watched
    }
}

/// What containers use at this moment; `None` of those that do not run.
pub(crate) fn sample(engine: &Engine) -> impl FnMut(&Container, &View) -> Option<Stats> {
    let (now, mut text) = (HostNow::read(), Vec::new());
    move |container, view| {
        let mut files = Files::open(engine, view).ok().flatten()?;
        Some(files.read(container, view, &now, &mut text))
    }
}

/// Samples once a second, until nobody watches.
async fn sample_all(engine: Weak<Engine>) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(engine) = engine.upgrade() else { return };
        let watched = engine.sampler.watched();
        if watched.is_empty() {
            return;
        }
        let sampled = blocking(move || {
            let (now, mut text) = (HostNow::read(), Vec::new());
            for some in watched.chunks(TOLD_TOGETHER) {
                let take = |series: &Arc<Series>| series.take(&engine, &now, &mut text);
                let taken: Vec<_> = some.iter().map(take).collect();
                for (series, stats) in some.iter().zip(taken) {
                    if let Some(stats) = stats {
                        series.tell(stats);
                    }
                }
            }
            Ok(())
        });
        if let Err(error) = sampled.await {
            tracing::error!(%error, "sample what containers use");
        }
    }
}

impl Series {
    fn of(container: Arc<Container>) -> Arc<Self> {
        Arc::new(Self { container, files: Mutex::default(), latest: watch::Sender::new(None) })
    }

    /// Takes a sample now.
    async fn sample(self: Arc<Self>, engine: &Arc<Engine>) -> Result<()> {
        let engine = Arc::clone(engine);
        blocking(move || {
            if let Some(stats) = self.take(&engine, &HostNow::read(), &mut Vec::new()) {
                self.tell(stats);
            }
            Ok(())
        })
        .await
    }

    /// What is new.
    fn take(&self, engine: &Engine, now: &HostNow, text: &mut Vec<u8>) -> Option<Stats> {
        let view = self.container.view();
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.latest.borrow().clone();
        let was_running = files.is_some();
        if !files.as_ref().is_some_and(|files| files.are_of(&view)) {
            *files = Files::open(engine, &view).unwrap_or_else(|error| {
                tracing::debug!(%error, "open what tells a container's use");
                None
            });
        }
        match &mut *files {
            Some(files) => {
                let mut stats = files.read(&self.container, &view, now, text);
                if let Some(before) = before.filter(|_| was_running) {
                    stats.preread.clone_from(&before.read);
                    stats.precpu_stats.clone_from(&before.cpu_stats);
                }
                Some(stats)
            }
            // A container that does not run has nothing new, until it is removed.
            None if before.is_none() || was_running || view.removed => {
                Some(usage::empty(&self.container, &view))
            }
            None => None,
        }
    }

    /// Tells it those who listen.
    fn tell(&self, stats: Stats) {
        self.latest.send_replace(Some(Arc::new(stats)));
    }
}

/// One who listens.
struct Listening {
    series: Arc<Series>,
    samples: watch::Receiver<Option<Arc<Stats>>>,
    begun: bool,
    streams: bool,
}

impl Listening {
    async fn next(mut self) -> Option<(Result<Arc<Stats>>, Self)> {
        if self.begun {
            if !self.streams {
                return None;
            }
            // The sender is in the series, which is held here.
            self.samples.changed().await.ok()?;
        }
        if self.series.container.view().removed {
            return None;
        }
        self.begun = true;
        let stats = self.samples.borrow_and_update().clone()?;
        Some((Ok(stats), self))
    }
}
