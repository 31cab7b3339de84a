//! Removing names and images, by Docker's rules.

use ponton_oci::digest::ImageId;
use ponton_oci::reference::Reference;

use crate::{Error, Images, Removed, Result, User};

impl Images {
    /// Removes a name, and the image with its last name; given an id, the image with all its names.
    ///
    /// `users` tells which containers are made from an image. One that runs keeps the image from
    /// being removed; one that is stopped does unless `force` is given, and keeps its layers
    /// anyway.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> Result<Vec<Removed>> {
        let _guard = self.exclusive();
        let id = self.store.images().resolve(name)?;
        let references = self.store.images().references_of(&id)?;
        let users = users(&id);
        let mut removed = Vec::new();
        if let Some(reference) = named(name, &references) {
            if let (false, 1, Some(user)) = (force, references.len(), users.first()) {
                return Err(Error::Conflict(format!(
                    "conflict: unable to remove repository reference \"{name}\" (must force) - \
                     container {} is using its referenced image {}",
                    short(&user.container),
                    short(id.hex())
                )));
            }
            if references.len() == 1 {
                check_running(&id, &users)?;
            }
            self.store.images().untag(&reference)?;
            removed.push(Removed::Untagged(reference.familiar()));
            if references.len() > 1 {
                return Ok(removed);
            }
        } else {
            check_running(&id, &users)?;
            if !force {
                check_soft(&id, &references, &users)?;
            }
            for reference in references {
                self.store.images().untag(&reference)?;
                removed.push(Removed::Untagged(reference.familiar()));
            }
        }
        self.delete(&id, &mut removed)?;
        Ok(removed)
    }

    fn delete(&self, id: &ImageId, removed: &mut Vec<Removed>) -> Result<()> {
        let left = self.store.images().remove(id)?;
        removed.push(Removed::Deleted(id.to_string()));
        for layer in left.layers {
            match self.snapshotter.remove_layer(&layer.chain_id) {
                Ok(()) => removed.push(Removed::Deleted(layer.chain_id.to_string())),
                // A stopped container stands on it and on all below; `collect` takes them later.
                Err(ponton_snapshot::Error::LayerInUse(_)) => break,
                Err(ponton_snapshot::Error::LayerNotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for blob in left.blobs {
            self.store.content().remove(&blob)?;
        }
        Ok(())
    }

    /// Removes layers that neither an image nor a snapshot has: left by a kill, or by the forced
    /// removal of an image whose containers are gone now. Cheap when there are none.
    pub fn collect(&self) -> Result<()> {
        let _guard = self.exclusive();
        let known: std::collections::HashSet<_> =
            self.store.images().layers()?.into_iter().map(|layer| layer.chain_id).collect();
        let mut orphans: Vec<_> =
            self.snapshotter.layers().into_iter().filter(|chain| !known.contains(chain)).collect();
        // Children keep their parents: one round for each level.
        loop {
            let before = orphans.len();
            orphans.retain(|chain| self.snapshotter.remove_layer(chain).is_err());
            if orphans.is_empty() || orphans.len() == before {
                return Ok(());
            }
        }
    }
}

/// The name among the image's that the user gave, if it was not an id.
fn named(name: &str, references: &[Reference]) -> Option<Reference> {
    let reference = Reference::parse(name).ok()?;
    references.iter().find(|known| **known == reference).cloned()
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn check_running(id: &ImageId, users: &[User]) -> Result<()> {
    let Some(user) = users.iter().find(|user| user.running) else { return Ok(()) };
    Err(Error::Conflict(format!(
        "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
        short(id.hex()),
        short(&user.container)
    )))
}

fn check_soft(id: &ImageId, references: &[Reference], users: &[User]) -> Result<()> {
    let conflict = |why: String| {
        Err(Error::Conflict(format!(
            "conflict: unable to delete {} (must be forced) - {why}",
            short(id.hex())
        )))
    };
    if references.len() > 1 {
        return conflict("image is referenced in multiple repositories".to_owned());
    }
    if let Some(user) = users.first() {
        return conflict(format!("image is being used by stopped container {}", short(&user.container)));
    }
    Ok(())
}
