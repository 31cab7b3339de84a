//! `images --tree`: the platforms of each image below it.

use ponton_api::image::Summary;
use ponton_api::unit::human_size;
use ponton_oci::platform::Platform;

use crate::command::Invocation;
use crate::error::Error;
use crate::format::short_id;
use crate::{output, terminal};

/// Prints the images that match.
pub(super) async fn show(call: &Invocation, filters: &str) -> Result<u8, Error> {
    let flags = &call.flags;
    for (flag, name) in
        [("quiet", "quiet"), ("no-trunc", "no-trunc"), ("digests", "show-digest"), ("format", "format")]
    {
        if flags.is_set(flag) {
            return Err(Error::invalid(format!("--{name} is not yet supported with --tree")));
        }
    }
    let mut images = call.context.client().await?.image_list(flags.on("all"), true, filters).await?;
    images.retain(|image| flags.on("all") || !image.repo_tags.is_empty());
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let width = terminal::size().map_or(80, |(_, columns)| usize::from(columns));
    output::print(&text(&images, width))?;
    Ok(0)
}

/// An image, or one of its platforms.
struct Entry {
    names: Vec<String>,
    id: String,
    usage: i64,
    content: i64,
    is_used: bool,
}

fn text(images: &[Summary], width: usize) -> String {
    let groups: Vec<Vec<Entry>> = images.iter().map(entries).collect();
    let is_spaced = groups.iter().any(|group| group.len() > 1);
    let all = groups.iter().flatten();
    // Docker counts the bytes of the branches.
    let first = all.flat_map(|entry| &entry.names).map(String::len).max().unwrap_or(0).max("IMAGE".len());
    let mut text = format!("{:>width$}\n\n", " Info ->  U In Use ");
    let usage = "DISK USAGE";
    text.push_str(&format!("{:first$}   {:12}   {usage}   CONTENT SIZE   EXTRA\n", "IMAGE", "ID"));
    for group in &groups {
        for entry in group {
            let Some((last, others)) = entry.names.split_last() else { continue };
            text.extend(others.iter().map(|name| format!("{name}\n")));
            let (usage, content) = (human_size(entry.usage), human_size(entry.content));
            let extra = if entry.is_used { "U" } else { "" };
            text.push_str(&format!(
                "{last:first$}   {:12}   {usage:>10}   {content:>12}   {extra:5}\n",
                short_id(&entry.id)
            ));
        }
        if is_spaced {
            text.push('\n');
        }
    }
    text
}

fn entries(image: &Summary) -> Vec<Entry> {
    let mut entries = vec![Entry {
        names: match image.repo_tags.as_slice() {
            [] => vec!["<untagged>".to_owned()],
            tags => tags.to_vec(),
        },
        id: image.id.clone(),
        usage: image.size,
        content: 0,
        is_used: image.containers > 0,
    }];
    for manifest in image.manifests.iter().flatten() {
        let Some(data) = manifest.image_data.as_ref().filter(|_| manifest.kind == "image") else { continue };
        let platform = Platform {
            architecture: data.platform.architecture.clone(),
            os: data.platform.os.clone(),
            variant: data.platform.variant.clone(),
            ..Platform::default()
        };
        let is_used = !data.containers.is_empty();
        entries[0].is_used |= is_used;
        entries[0].content += manifest.size.content;
        entries.push(Entry {
            names: vec![format!("├─ {platform}")],
            id: manifest.id.clone(),
            usage: manifest.size.total,
            content: manifest.size.content,
            is_used,
        });
    }
    if entries.len() > 1
        && let Some(last) = entries.last_mut()
    {
        last.names = last.names.iter().map(|name| name.replacen('├', "└", 1)).collect();
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docker's client 28.2 prints the same of the same answer.
    #[test]
    fn platforms_are_below_their_image() {
        let answer = r#"[{"Id":"sha256:ab12ab12ab12ab12","RepoTags":["busybox:latest","busybox:1.36"],"RepoDigests":[],
            "Created":1700000000,"Size":4500000,"SharedSize":-1,"Containers":-1,"Manifests":[
            {"ID":"sha256:ab12ab12ab12ab12","Available":true,"Size":{"Content":2200000,"Total":4500000},"Kind":"image",
             "ImageData":{"Platform":{"architecture":"amd64","os":"linux"},"Containers":["c1"],"Size":{"Unpacked":2300000}}},
            {"ID":"sha256:cd34cd34cd34cd34","Available":false,"Size":{"Content":0,"Total":0},"Kind":"image",
             "ImageData":{"Platform":{"architecture":"arm64","os":"linux","variant":"v8"},"Containers":[],"Size":{"Unpacked":0}}},
            {"ID":"sha256:ef56ef56ef56ef56","Available":true,"Size":{"Content":10,"Total":10},"Kind":"attestation"}]}]"#;
        let images: Vec<Summary> = serde_json::from_str(answer).unwrap();
        assert_eq!(
            text(&images, 80),
            "                                                              Info ->  U In Use \n\
             \n\
             IMAGE                   ID             DISK USAGE   CONTENT SIZE   EXTRA\n\
             busybox:latest\n\
             busybox:1.36            ab12ab12ab12        4.5MB          2.2MB   U    \n\
             ├─ linux/amd64          ab12ab12ab12        4.5MB          2.2MB   U    \n\
             └─ linux/arm64/v8       cd34cd34cd34           0B             0B        \n\n"
        );
    }
}
