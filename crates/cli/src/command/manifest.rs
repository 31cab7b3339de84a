//! `ponton manifest …`: lists of manifests, put together here and pushed to a registry by the client itself.

mod remote;
mod store;

use ponton_oci::media_type::{DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST};
use ponton_oci::reference::Reference;
use serde_json::Value;

use super::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;
use remote::Registry;
use store::{Entry, Store};

/// The commands of the noun.
pub(crate) static COMMANDS: &[&Command] = &[&ANNOTATE, &CREATE, &INSPECT, &PUSH, &RM];

const INSECURE: Flag =
    Flag::switch("insecure", "Speak to a registry without verified certificates, or by plain HTTP");

static CREATE: Command = Command::new(
    "create",
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Create a local manifest list for annotating and pushing to a registry",
    |call| Box::pin(create(call)),
)
.flags(&[&[Flag::switch("amend", "Amend a manifest list that is there").short('a'), INSECURE]])
.arguments(Arguments::AtLeast(2), Complete::Nothing);

static ANNOTATE: Command = Command::new(
    "annotate",
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    "Add additional information to a local image manifest",
    |call| Box::pin(async move { annotate(&call) }),
)
.flags(&[&[
    Flag::text("arch", "Architecture"),
    Flag::text("os", "Operating system"),
    Flag::list("os-features", "Features that the operating system must have").named("strings"),
    Flag::text("os-version", "Version of the operating system"),
    Flag::text("variant", "Variant of the architecture"),
]])
.arguments(Arguments::Exactly(2), Complete::Nothing);

static INSPECT: Command = Command::new(
    "inspect",
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    "Display an image manifest, or manifest list",
    |call| Box::pin(inspect(call)),
)
.flags(&[&[INSECURE, Flag::switch("verbose", "Layers and platforms too").short('v')]])
.arguments(Arguments::Between(1, 2), Complete::Nothing);

static PUSH: Command =
    Command::new("push", "[OPTIONS] MANIFEST_LIST", "Push a manifest list to a repository", |call| {
        Box::pin(push(call))
    })
    .flags(&[&[INSECURE, Flag::switch("purge", "Forget the manifest list afterwards").short('p')]])
    .arguments(Arguments::Exactly(1), Complete::Nothing);

static RM: Command = Command::new(
    "rm",
    "MANIFEST_LIST [MANIFEST_LIST...]",
    "Delete one or more manifest lists from local storage",
    |call| Box::pin(async move { remove(&call) }),
)
.arguments(Arguments::AtLeast(1), Complete::Nothing);

fn reference(text: &str) -> Result<Reference, Error> {
    Reference::parse(text).map_err(|error| Error::invalid(error.to_string()))
}

fn list_reference(text: &str) -> Result<Reference, Error> {
    reference(text)
        .map_err(|error| Error::invalid(format!("error parsing name for manifest list {text}: {error}")))
}

async fn create(call: Invocation) -> Result<u8, Error> {
    let store = Store::of_user();
    let list = list_reference(&call.arguments[0])?;
    if !store.list(&list)?.is_empty() && !call.flags.on("amend") {
        return Err(Error::invalid("refusing to amend an existing manifest list with no --amend flag"));
    }
    for name in &call.arguments[1..] {
        let image = reference(name)?;
        let entry = match store.get(&list, &image)? {
            Some(entry) => entry,
            None => Registry::new(&image, call.flags.on("insecure"))?.image(&image).await?,
        };
        store.save(&list, &entry)?;
    }
    output::print_line(&format!("Created manifest list {list}"))?;
    Ok(0)
}

fn annotate(call: &Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let store = Store::of_user();
    let list = list_reference(&call.arguments[0])?;
    let image = reference(&call.arguments[1])?;
    let Some(mut entry) = store.get(&list, &image)? else {
        return Err(Error::invalid(format!(
            "manifest for image {} does not exist in {}",
            call.arguments[1], call.arguments[0]
        )));
    };
    let platform = entry.descriptor.platform.get_or_insert_default();
    for (flag, field) in [
        ("os", &mut platform.os),
        ("arch", &mut platform.architecture),
        ("variant", &mut platform.variant),
        ("os-version", &mut platform.os_version),
    ] {
        if !flags.text(flag).is_empty() {
            *field = flags.text(flag).to_owned();
        }
    }
    for feature in flags.all("os-features").iter().flat_map(|features| features.split(',')) {
        if !platform.os_features.iter().any(|known| known == feature) {
            platform.os_features.push(feature.to_owned());
        }
    }
    if !is_platform(&platform.os, &platform.architecture) {
        return Err(Error::invalid(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            flags.text("os"),
            flags.text("arch")
        )));
    }
    store.save(&list, &entry)?;
    Ok(0)
}

/// Whether Go, and so the images that there are, knows the platform.
fn is_platform(os: &str, architecture: &str) -> bool {
    let architectures: &[&str] = match os {
        "linux" => &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
            "ppc64le", "riscv64", "s390x",
        ],
        "windows" | "freebsd" | "netbsd" | "openbsd" => &["386", "amd64", "arm", "arm64", "riscv64"],
        "darwin" => &["386", "amd64", "arm", "arm64"],
        "android" => &["386", "amd64", "arm", "arm64"],
        "plan9" => &["386", "amd64", "arm"],
        "aix" => &["ppc64"],
        "dragonfly" | "solaris" | "illumos" => &["amd64"],
        "js" | "wasip1" => &["wasm"],
        _ => return false,
    };
    architectures.contains(&architecture)
}

async fn inspect(call: Invocation) -> Result<u8, Error> {
    let (store, is_verbose) = (Store::of_user(), call.flags.on("verbose"));
    let insecure = call.flags.on("insecure");
    if let [list, image] = call.arguments.as_slice() {
        let (list, image) = (list_reference(list)?, reference(image)?);
        let entry = match store.get(&list, &image)? {
            Some(entry) => entry,
            None => Registry::new(&image, insecure)?.image(&image).await?,
        };
        return print_image(&entry, is_verbose);
    }
    let name = reference(&call.arguments[0])?;
    let local = store.list(&name)?;
    if !local.is_empty() {
        return print_list(&local, is_verbose);
    }
    let registry = Registry::new(&name, insecure)?;
    let found = registry.fetch(&name).await?;
    if ponton_oci::media_type::is_index(&found.descriptor.media_type) {
        return match is_verbose {
            true => print_list(&registry.images(&name, &found.bytes).await?, true),
            false => print_indented(&document(&found.bytes)?, b"   "),
        };
    }
    print_image(&registry.image(&name).await?, is_verbose)
}

fn print_image(entry: &Entry, is_verbose: bool) -> Result<u8, Error> {
    let value = if is_verbose { entry.to_json() } else { document(&entry.raw)? };
    print_indented(&value, b"\t")
}

fn print_list(entries: &[Entry], is_verbose: bool) -> Result<u8, Error> {
    match is_verbose {
        true => print_indented(&Value::Array(entries.iter().map(Entry::to_json).collect()), b"\t"),
        false => print_indented(&index(entries), b"   "),
    }
}

fn document(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("decode the manifest: {error}")))
}

fn print_indented(value: &Value, indent: &[u8]) -> Result<u8, Error> {
    let mut text = indented(value, indent);
    text.push(b'\n');
    output::print_bytes(&text)?;
    Ok(0)
}

fn indented(value: &Value, indent: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    // Values of JSON always serialise.
    let _ =
        serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut text, formatter));
    text
}

/// The document that is pushed: OCI's index if the first manifest is OCI's, else Docker's list.
fn index(entries: &[Entry]) -> Value {
    let is_oci = entries.first().is_some_and(|entry| entry.descriptor.media_type == OCI_MANIFEST);
    let manifests = entries.iter().map(|entry| {
        let descriptor = &entry.descriptor;
        let mut value = serde_json::json!({
            "mediaType": descriptor.media_type,
            "size": descriptor.size,
            "digest": descriptor.digest,
        });
        value["platform"] = serde_json::json!(descriptor.platform.clone().unwrap_or_default());
        value
    });
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": if is_oci { OCI_INDEX } else { DOCKER_MANIFEST_LIST },
        "manifests": manifests.collect::<Vec<_>>(),
    })
}

async fn push(call: Invocation) -> Result<u8, Error> {
    let store = Store::of_user();
    let list = list_reference(&call.arguments[0])?;
    let entries = store.existing(&list)?;
    let registry = Registry::new(&list, call.flags.on("insecure"))?;
    for entry in &entries {
        let image = reference(&entry.name)?;
        if image.registry() != list.registry() {
            return Err(Error::invalid(format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                image.registry(),
                list.registry()
            )));
        }
        let platform = entry.descriptor.platform.clone().unwrap_or_default();
        if platform.architecture.is_empty() || platform.os.is_empty() {
            return Err(Error::invalid(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                entry.name
            )));
        }
        if image.repository() != list.repository() {
            registry.copy(entry, &image, &list).await?;
            let digest = &entry.descriptor.digest;
            let pushed = list.with_digest(digest.clone());
            output::print_line(&format!("Pushed ref {pushed} with digest: {digest}"))?;
        }
    }
    let index = index(&entries);
    let media_type = index["mediaType"].as_str().unwrap_or_default().to_owned();
    let digest = registry.push_index(&list, &media_type, indented(&index, b"   ")).await?;
    output::print_line(&digest)?;
    if call.flags.on("purge") {
        store.remove(&list)?;
    }
    Ok(0)
}

fn remove(call: &Invocation) -> Result<u8, Error> {
    let store = Store::of_user();
    let remove = |name: &String| {
        let list = list_reference(name)?;
        store.existing(&list)?;
        store.remove(&list)
    };
    let errors: Vec<String> =
        call.arguments.iter().filter_map(|name| remove(name).err()).map(|error| error.to_string()).collect();
    if errors.is_empty() { Ok(0) } else { Err(Error::invalid(errors.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use ponton_oci::descriptor::Descriptor;
    use ponton_oci::digest::Digest;
    use ponton_oci::media_type::DOCKER_MANIFEST;

    use super::*;

    #[test]
    fn lists_are_written_as_docker_writes_them() {
        let digest = Digest::sha256_of(b"x");
        let mut descriptor = Descriptor::new(DOCKER_MANIFEST, digest.clone(), 528);
        descriptor.platform = Some("linux/arm/v7".parse().unwrap());
        let entry = Entry { name: "h/x:1".to_owned(), descriptor, raw: b"{}".to_vec() };
        let text = String::from_utf8(indented(&index(&[entry]), b"   ")).unwrap();
        let expected = format!(
            r#"{{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
   "manifests": [
      {{
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 528,
         "digest": "{digest}",
         "platform": {{
            "architecture": "arm",
            "os": "linux",
            "variant": "v7"
         }}
      }}
   ]
}}"#
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn platforms_are_those_of_go() {
        assert!(is_platform("linux", "riscv64") && is_platform("windows", "amd64"));
        assert!(!is_platform("linux", "foo") && !is_platform("", "amd64"));
    }
}
