//! Waiting for a container.

use std::sync::Arc;

use ponton_api::container::{WaitError, WaitResponse};

use super::View;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lifecycle::State;
use crate::request::{Pending, WaitCondition};

impl Engine {
    /// Begins to wait: what happens after this has returned is seen.
    pub async fn wait(
        self: &Arc<Self>,
        name: &str,
        condition: WaitCondition,
    ) -> Result<Pending<WaitResponse>> {
        let container = self.find(name)?;
        let mut watch = container.watch();
        let ended_before = watch.borrow().exits;
        let name = name.to_owned();
        Ok(Box::pin(async move {
            let reached = |view: &Arc<View>| match condition {
                WaitCondition::NotRunning => view.exits > ended_before || view.removed || !is_busy(view),
                WaitCondition::NextExit => view.exits > ended_before || view.removed,
                // A removal that failed is an answer, too.
                WaitCondition::Removed => view.removed || matches!(view.life.state, State::Dead { .. }),
            };
            match watch.wait_for(reached).await {
                Ok(view) => Ok(answer(&view, view.exits > ended_before)),
                Err(_) => Err(Error::no_such_container(&name)),
            }
        }))
    }
}

fn is_busy(view: &View) -> bool {
    view.life.is_running() || matches!(view.life.state, State::Restarting { .. })
}

/// A container that could not be started and removed itself has no error here: who started it has
/// been told.
fn answer(view: &View, has_run: bool) -> WaitResponse {
    let last = &view.life.last;
    if let State::Dead { cause } = &view.life.state {
        let message = format!("the container was not removed: {cause}");
        return WaitResponse { status_code: i64::from(last.exit_code), error: Some(WaitError { message }) };
    }
    let error = (!last.error.is_empty() && (has_run || !view.removed))
        .then(|| WaitError { message: last.error.clone() });
    WaitResponse { status_code: i64::from(last.exit_code), error }
}
