//! Removing names and images, by Docker's rules.

use ponton_oci::digest::ImageId;
use ponton_oci::reference::Reference;

use crate::{Error, Images, Removed, Result, User};

impl Images {
    /// Removes a name, and the image with its last name; given an id, the image with all its names.
    ///
    /// `users` tells which containers are made from an image. They keep its last name, unless `force`
    /// is given; one that runs keeps the image in any case, and one that is stopped its layers.
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
            if let (false, true, Some(user)) = (force, is_single(&references), users.first()) {
                return Err(Error::Conflict(format!(
                    "conflict: unable to remove repository reference \"{name}\" (must force) - \
                     container {} is using its referenced image {}",
                    short(&user.container),
                    short(id.hex())
                )));
            }
            let going = going_with(&reference, &references);
            self.untag(going.iter().copied(), &mut removed)?;
            // What runs keeps the image, though not its name.
            if going.len() < references.len() || users.iter().any(|user| user.running) {
                return Ok(removed);
            }
        } else {
            check_running(&id, &users)?;
            if !force {
                check_soft(&id, &references, &users)?;
            }
            self.untag(&references, &mut removed)?;
        }
        self.delete(&id, &mut removed)?;
        Ok(removed)
    }

    pub(crate) fn untag<'a>(
        &self,
        references: impl IntoIterator<Item = &'a Reference>,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        for reference in references {
            self.store.images().untag(reference)?;
            removed.push(Removed::Untagged(reference.familiar()));
        }
        Ok(())
    }

    /// Removes an image that has no names any more; says how many bytes that frees. The caller holds
    /// [`Images::exclusive`].
    pub(crate) fn delete(&self, id: &ImageId, removed: &mut Vec<Removed>) -> Result<u64> {
        let left = self.store.images().remove(id)?;
        removed.push(Removed::Deleted(id.to_string()));
        let mut freed = 0;
        for layer in left.layers {
            // A pull counts on it; should that fail, `collect` takes the layer.
            if self.store.is_held(layer.chain_id.digest()) {
                break;
            }
            match self.snapshotter.remove_layer(&layer.chain_id) {
                Ok(()) => {
                    freed += layer.size;
                    removed.push(Removed::Deleted(layer.chain_id.to_string()));
                }
                // A stopped container stands on it and on all below; `collect` takes them later.
                Err(ponton_snapshot::Error::LayerInUse(_)) => break,
                Err(ponton_snapshot::Error::LayerNotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(freed + self.store.remove_unnamed(&left.blobs)?)
    }

    /// Removes what an operation that failed has left. It has failed already: what goes wrong now is
    /// for the log.
    pub(crate) fn collect_leftovers(&self) {
        let freed = self.collect().and_then(|()| Ok(self.store.collect_garbage()?));
        if let Err(error) = freed {
            tracing::warn!(%error, "remove leftovers of an image");
        }
    }

    /// Removes layers that neither an image nor a snapshot has: left by a kill, or by the forced
    /// removal of an image whose containers are gone now. Cheap when there are none.
    pub fn collect(&self) -> Result<()> {
        let _guard = self.exclusive();
        let known: std::collections::HashSet<_> =
            self.store.images().layers()?.into_iter().map(|layer| layer.chain_id).collect();
        let mut orphans = self.snapshotter.layers();
        orphans.retain(|chain| !known.contains(chain) && !self.store.is_held(chain.digest()));
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

/// Whether all names are of one repository, and one of them at most is a tag.
fn is_single(references: &[Reference]) -> bool {
    let Some(first) = references.first() else { return false };
    references.iter().all(|name| name.name() == first.name())
        && references.iter().filter(|name| name.tag().is_some()).count() <= 1
}

/// The name itself, and with the last tag of a repository its names by digest.
fn going_with<'a>(name: &Reference, references: &'a [Reference]) -> Vec<&'a Reference> {
    let is_last_tag = name.digest().is_none()
        && !references
            .iter()
            .any(|other| other != name && other.digest().is_none() && other.name() == name.name());
    let goes = |other: &&Reference| {
        *other == name || (is_last_tag && other.digest().is_some() && other.name() == name.name())
    };
    let (mut going, by_digest): (Vec<_>, Vec<_>) =
        references.iter().filter(goes).partition(|other| *other == name);
    going.extend(by_digest);
    going
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
    if !references.is_empty() && !is_single(references) {
        return conflict("image is referenced in multiple repositories".to_owned());
    }
    if let Some(user) = users.first() {
        return conflict(format!("image is being used by stopped container {}", short(&user.container)));
    }
    Ok(())
}
