//! Volumes out of the engine and into it: backup, restore and clone.
//!
//! While a volume is read, the running containers that write to it are frozen ([`Frozen`]). What is written
//! becomes the volume's content at once, or not at all: it is made beside the volume as a copy of an image's
//! content is ([`super::fill`]).

use std::io::{BufReader, BufWriter};
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;
use ponton_api::volume::Volume;
use ponton_archive::apply::{Applier, Options};
use ponton_archive::compression::Decoder;
use ponton_archive::create::Creator;
use ponton_sys::path::Root;

use super::fill::{Place, open};
use super::frozen::Frozen;
use super::{Asked, Temporary, local};
use crate::engine::{Engine, blocking};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::request::{ByteSource, Stream};
use crate::stream;

impl Engine {
    /// A volume's content as a tar. With `pause` those who write to it are frozen until the stream has
    /// ended, or is dropped.
    pub async fn volume_backup(self: &Arc<Self>, name: &str, pause: bool) -> Result<Stream<Bytes>> {
        let user = format!("backup {}", crate::id::generate()?);
        let (engine, volume) = (Arc::clone(self), name.to_owned());
        let using = blocking(move || Ok(Temporary(vec![engine.use_volume(&volume, &user)?]))).await?;
        let frozen = if pause { self.freeze_users(name).await } else { Frozen::none(self) };
        let (directory, name) = (self.volume_directory(name), name.to_owned());
        Ok(stream::written(move |writer| {
            let _until_the_end = (using, frozen);
            let failed = |error| Error::failed(format!("back up volume {name}"), error);
            let mut creator = Creator::new(BufWriter::with_capacity(1 << 16, writer));
            creator.add(open(&directory)?.as_fd(), b"_data", b".").map_err(failed)?;
            creator.finish().map_err(failed)?;
            Ok(())
        }))
    }

    /// Makes a tar, also a compressed one, the content of a volume, which is made if it is not there. One
    /// that has content is left as it is, unless `force` replaces it.
    pub async fn volume_restore(
        self: &Arc<Self>,
        name: &str,
        force: bool,
        body: ByteSource,
    ) -> Result<Volume> {
        let asked = Asked { name: name.to_owned(), ..Asked::default() };
        self.check_volume(&asked)?;
        let is_new = self.store.volumes().get(name)?.is_none();
        let reader = stream::reader(body);
        let (engine, volume) = (Arc::clone(self), name.to_owned());
        let runtime = tokio::runtime::Handle::current();
        let restored = blocking(move || {
            engine.make_volume(&asked, false)?;
            let user = format!("restore {}", crate::id::generate()?);
            let _using = Temporary(vec![engine.use_volume(&volume, &user)?]);
            let hold = engine.volumes.hold(&volume);
            let Some(_restoring) = hold.begin_restoring() else {
                return Err(Error::conflict(format!("restore {volume}: it is being restored already")));
            };
            let _turn = hold.turn();
            let place = engine.place_of(&volume);
            place.check_writable(&volume, force)?;
            place.begin()?;
            unpack(reader, &place).inspect_err(|_| place.give_up())?;
            // Only while the content is exchanged.
            let _frozen = runtime.block_on(engine.freeze_users(&volume));
            place.check_writable(&volume, force).inspect_err(|_| place.give_up())?;
            place.finish(force)
        });
        if let Err(error) = restored.await {
            if is_new && let Err(error) = self.drop_volume(name, None) {
                tracing::debug!(
                    error = chain(&error),
                    volume = name,
                    "remove a volume that was not restored"
                );
            }
            return Err(error);
        }
        self.volume_inspect(name).await
    }

    /// Makes a new volume with the content of another, sharing blocks where the disk can.
    pub async fn volume_clone(self: &Arc<Self>, name: &str, to: &str, pause: bool) -> Result<Volume> {
        let Some(record) = self.store.volumes().get(name)? else {
            return Err(super::no_such_volume(name));
        };
        if to.is_empty() {
            return Err(Error::invalid("clone volume: the name of the new one is missing"));
        }
        if self.store.volumes().get(to)?.is_some() {
            return Err(Error::conflict(format!("clone {name}: a volume named {to} exists already")));
        }
        let asked = Asked { name: to.to_owned(), labels: super::parse(&record).labels, ..Asked::default() };
        self.check_volume(&asked)?;
        let user = format!("clone {}", crate::id::generate()?);
        let (engine, volume) = (Arc::clone(self), name.to_owned());
        let using = blocking(move || Ok(Temporary(vec![engine.use_volume(&volume, &user)?]))).await?;
        let frozen = if pause { self.freeze_users(name).await } else { Frozen::none(self) };
        let (engine, source, target) = (Arc::clone(self), self.volume_data(name), to.to_owned());
        blocking(move || {
            let _until_the_end = (using, frozen);
            let hold = engine.volumes.hold(&target);
            engine.make_volume(&asked, false)?;
            let copied = hold.turn_to_fill(&target).and_then(|_turn| {
                let place = engine.place_of(&target);
                place.fill(open(&source)?)
            });
            drop(hold);
            if let Err(error) = copied {
                // A half of it is worth nothing.
                engine.drop_volume(&target, None)?;
                return Err(error);
            }
            Ok(())
        })
        .await?;
        self.volume_inspect(to).await
    }

    fn place_of(&self, name: &str) -> Place {
        let is_mounted = local::is_mount_point(&self.volume_data(name));
        Place::of(&self.volume_directory(name), is_mounted)
    }
}

fn unpack(reader: stream::Reader, place: &Place) -> Result<()> {
    let failed = |error: ponton_archive::Error| {
        let kind = if error.is_invalid() { ErrorKind::Invalid } else { ErrorKind::Internal };
        Error { kind, message: chain(&error), source: Some(Box::new(error)) }
    };
    let decoder = Decoder::new(BufReader::new(reader)).map_err(failed)?;
    let root = Root::from_fd(open(&place.filling)?);
    let mut applier = Applier::new(root, Options::default()).map_err(failed)?;
    applier.apply(BufReader::new(decoder), None).map(drop).map_err(failed)
}
