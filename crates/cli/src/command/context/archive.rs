//! A context as a tar archive: `meta.json`, and its keys under `tls/`.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::context::store::{Meta, Store, check_name};
use crate::error::Error;
use crate::{config, output};

/// As much as docker takes.
const MAX_BYTES: u64 = 10 << 20;

pub(super) static EXPORT: Command = Command::new(
    "export",
    "[OPTIONS] CONTEXT [FILE|-]",
    "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    |call| Box::pin(async move { export(&call) }),
)
.arguments(Arguments::Between(1, 2), Complete::Contexts);

pub(super) static IMPORT: Command =
    Command::new("import", "CONTEXT FILE|-", "Import a context from a tar file", |call| {
        Box::pin(async move { import(&call) })
    })
    .arguments(Arguments::Exactly(2), Complete::Nothing);

fn export(call: &Invocation) -> Result<u8, Error> {
    let name = call.arguments[0].as_str();
    check_name(name)?;
    let store = Store::of_user();
    let meta = store.get(name)?;
    let failed = |source| Error::file("read", store.tls_directory(name).display().to_string(), source);
    let bytes = archive(&meta, &store.tls_directory(name)).map_err(failed)?;
    let path = call.arguments.get(1).cloned().unwrap_or_else(|| format!("{name}.dockercontext"));
    if path == "-" {
        if io::stdout().is_terminal() {
            return Err(Error::invalid("cowardly refusing to export to a terminal, specify a file path"));
        }
        output::print_bytes(&bytes)?;
        return Ok(0);
    }
    let written = File::create_new(&path).and_then(|mut file| file.write_all(&bytes));
    written.map_err(|source| Error::file("open", path.clone(), source))?;
    output::complain(&format!("Written file {path:?}"));
    Ok(0)
}

fn archive(meta: &Meta, keys: &Path) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory { 0o700 } else { 0o600 });
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes)
    };
    add("meta.json", tar::EntryType::Regular, serde_json::to_string(meta)?.as_bytes())?;
    add("tls", tar::EntryType::Directory, &[])?;
    for endpoint in fs::read_dir(keys).into_iter().flatten() {
        let endpoint = endpoint?;
        let directory = format!("tls/{}", endpoint.file_name().to_string_lossy());
        add(&directory, tar::EntryType::Directory, &[])?;
        for file in fs::read_dir(endpoint.path())? {
            let file = file?;
            let path = format!("{directory}/{}", file.file_name().to_string_lossy());
            add(&path, tar::EntryType::Regular, &fs::read(file.path())?)?;
        }
    }
    builder.into_inner()
}

fn import(call: &Invocation) -> Result<u8, Error> {
    let (name, path) = (call.arguments[0].as_str(), call.arguments[1].as_str());
    check_name(name)?;
    let store = Store::of_user();
    if store.has(name) {
        return Err(Error::invalid(format!("context {name:?} already exists")));
    }
    let failed = |source| Error::file("read", path, source);
    let mut bytes = Vec::new();
    if path == "-" {
        io::stdin().lock().take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)).map_err(failed)?;
    }
    let (mut meta, keys) = contents(&bytes)?;
    name.clone_into(&mut meta.name);
    store.put(&meta)?;
    for (endpoint, file, bytes) in keys {
        config::replace(&store.tls_directory(name).join(endpoint).join(file), &bytes)?;
    }
    super::said(name, "imported")
}

/// A file of keys: its endpoint, its name, its bytes.
type Key = (String, String, Vec<u8>);

fn contents(bytes: &[u8]) -> Result<(Meta, Vec<Key>), Error> {
    if bytes.starts_with(b"PK") {
        return Err(Error::invalid(
            "contexts in zip files are not implemented: unpack it, and make a tar of it",
        ));
    }
    let failed = |source: io::Error| Error::invalid(format!("read the context: {source}"));
    let (mut meta, mut keys) = (None, Vec::new());
    for entry in tar::Archive::new(bytes).entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(failed)?;
        match path.split('/').collect::<Vec<_>>()[..] {
            ["meta.json"] => {
                let parsed: serde_json::Value =
                    serde_json::from_slice(&content).map_err(|error| failed(error.into()))?;
                meta = Some(serde_json::from_value(parsed).map_err(|error| failed(error.into()))?);
            }
            ["tls", endpoint, file] if is_plain(endpoint) && is_plain(file) => {
                keys.push((endpoint.to_owned(), file.to_owned(), content));
            }
            _ => return Err(Error::invalid(format!("{path}: unexpected context file"))),
        }
    }
    let meta = meta.ok_or_else(|| Error::invalid("invalid context: no metadata found"))?;
    Ok((meta, keys))
}

fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_can_be_imported() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("docker")).unwrap();
        fs::write(directory.path().join("docker/ca.pem"), "key").unwrap();
        let meta = Meta::new("xx", "d", "unix:///x");
        let bytes = archive(&meta, directory.path()).unwrap();
        let keys = vec![("docker".to_owned(), "ca.pem".to_owned(), b"key".to_vec())];
        assert_eq!(contents(&bytes).unwrap(), (meta, keys));
    }

    #[test]
    fn strange_archives_are_refused() {
        let of = |path: &str, bytes: &[u8]| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            // Beyond the checks of the library, which would refuse the path.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
            builder.into_inner().unwrap()
        };
        for (path, bytes) in
            [("tls/../x", &b"a"[..]), ("../meta.json", b"{}"), ("other", b""), ("meta.json", b"[")]
        {
            assert!(contents(&of(path, bytes)).is_err(), "{path}");
        }
        assert!(contents(b"").unwrap_err().to_string().contains("no metadata"));
        assert!(contents(b"PK\x03\x04").unwrap_err().to_string().contains("zip"));
    }
}
