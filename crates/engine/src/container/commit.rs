//! `commit`: an image of what a container changed.

use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::container::Config;
use ponton_image::CommitOptions;
use ponton_oci::image_config::{ContainerConfig, ImageConfig};

use super::{Container, View};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, chain};
use crate::image::target;
use crate::lifecycle::{Event, State};
use crate::request::CommitRequest;

impl Engine {
    /// Makes an image of a container; answers its id.
    pub async fn commit(self: &Arc<Self>, request: CommitRequest) -> Result<String> {
        let container = self.find(&request.container)?;
        let engine = Arc::clone(self);
        // Also when the client goes: a container that was frozen for this goes on in any case.
        let done = tokio::spawn(async move { engine.commit_container(&container, request).await });
        done.await.map_err(|error| Error::failed("commit a container", error))?
    }

    async fn commit_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: CommitRequest,
    ) -> Result<String> {
        let begun = std::time::Instant::now();
        let view = container.view();
        check_state(container, &view)?;
        let reference = target(request.reference.as_deref())?;
        let name = reference.as_ref().map(ponton_oci::Reference::familiar);
        let settings = &view.settings;
        let options = CommitOptions {
            parent: settings.image.parse().ok(),
            config: image_config(request.config, &settings.config)?,
            changes: request.changes,
            author: request.author,
            message: request.comment.clone(),
            created_by: settings.config.cmd.as_deref().unwrap_or_default().join(" "),
            reference,
            created: Timestamp::now().to_string(),
        };
        let frozen = request.pause && container.change(|task| task.apply(Event::Pause)).await.is_ok();
        let (engine, id) = (Arc::clone(self), container.id.clone());
        let made = blocking(move || Ok(engine.images.commit_layer(&id, &options)?)).await;
        if frozen && let Err(error) = container.change(|task| task.apply(Event::Unpause)).await {
            tracing::error!(error = chain(&error), container = container.id, "thaw after commit");
        }
        let image = made?.to_string();
        self.counts.commit.since(begun);
        self.look_at_budget();
        if let Some(name) = &name {
            self.image_event("tag", &image, name);
        }
        let more = [
            ("comment", request.comment.as_str()),
            ("imageID", &image),
            ("imageRef", name.as_deref().unwrap_or_default()),
        ];
        super::emit(self, &container.id, &container.view(), "commit", &more);
        Ok(image)
    }
}

fn check_state(container: &Container, view: &View) -> Result<()> {
    let why = match view.life.state {
        State::Dead { .. } => "which is Dead",
        State::Removing => "which is being removed",
        _ if view.removed => return Err(Error::no_such_container(&container.id)),
        _ => return Ok(()),
    };
    Err(Error::conflict(format!("You cannot commit container {} {why}", container.id)))
}

/// The configuration that is asked for, with the container's where it says nothing.
fn image_config(wanted: Option<Config>, container: &Config) -> Result<ContainerConfig> {
    let config = match wanted {
        Some(mut config) => {
            let base = ImageConfig { config: converted(container)?, ..ImageConfig::default() };
            super::create::merge(&mut config, &base);
            converted(&config)?
        }
        None => converted(container)?,
    };
    Ok(config)
}

/// A container's configuration as an image's: the two share their names in JSON.
fn converted(config: &Config) -> Result<ContainerConfig> {
    let failed = |error| Error::failed("convert a container's configuration", error);
    let value = serde_json::to_value(config).map_err(failed)?;
    serde_json::from_value(value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_configuration_fills_the_gaps() {
        let container = Config {
            hostname: "h".into(),
            user: "u".into(),
            env: Some(vec!["A=1".into(), "B=2".into()]),
            cmd: Some(vec!["sh".into()]),
            working_dir: "/w".into(),
            ..Config::default()
        };
        let whole = image_config(None, &container).unwrap();
        assert_eq!((whole.user.as_str(), whole.working_dir.as_str()), ("u", "/w"));
        assert_eq!(whole.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        let wanted = Config { env: Some(vec!["A=3".into()]), user: "x".into(), ..Config::default() };
        let merged = image_config(Some(wanted), &container).unwrap();
        assert_eq!((merged.user.as_str(), merged.env.join(" ").as_str()), ("x", "A=3 B=2"));
        assert_eq!(merged.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    }
}
