//! An OCI image layout (image-spec image-layout.md) as a directory.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;

use ponton_archive::apply::{Applier, Options};
use ponton_archive::create::export;
use ponton_sys::path::Root;

use crate::layer::failed;
use crate::{Error, Images, LoadOptions, LoadedImage, Progress, Result, SaveOptions};

impl Images {
    /// Writes images as a layout into a directory, which is made if it is missing and must be empty.
    pub fn save_directory(&self, names: &[String], options: &SaveOptions, directory: &Path) -> Result<()> {
        let what = format!("write image layout {}", directory.display());
        fs::create_dir_all(directory).map_err(Error::io(what.clone()))?;
        if fs::read_dir(directory).map_err(Error::io(what.clone()))?.next().is_some() {
            return Err(Error::Invalid(format!("directory {} is not empty", directory.display())));
        }
        let root = Root::open(directory).map_err(|error| Error::io(what.clone())(error.source))?;
        let (input, output) = io::pipe().map_err(Error::io("create pipe"))?;
        thread::scope(|scope| {
            let saver = scope.spawn(move || self.save(names, options, &mut &output));
            let applied = Applier::new(root, Options::default())
                .and_then(|mut applier| applier.apply(BufReader::with_capacity(1 << 18, input), None));
            // When writing failed, saving did too, for that.
            applied.map_err(failed(&what)).map(drop).and(join(saver))
        })
    }

    /// Takes in the images of a layout in a directory, or of an unpacked archive. Links are followed
    /// inside of it only.
    pub fn load_directory(
        &self,
        directory: &Path,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<LoadedImage>> {
        let what = format!("read image layout {}", directory.display());
        let root = File::open(directory).map_err(Error::io(what.clone()))?;
        let (mut input, output) = io::pipe().map_err(Error::io("create pipe"))?;
        thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let output = BufWriter::with_capacity(1 << 18, output);
                export(root.as_fd(), output).map(drop).map_err(failed(&what))
            });
            let loaded = self.load(&mut input, options, progress);
            drop(input);
            match (loaded, join(writer)) {
                // What could not be read makes the archive look truncated.
                (Err(Error::Archive { .. }), Err(error)) => Err(error),
                (loaded, _) => loaded,
            }
        })
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
