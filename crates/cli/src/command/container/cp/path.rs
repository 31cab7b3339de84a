//! Paths of `cp`, before anything is touched.

use ponton_api::path::clean;

/// Where a path of the command line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Local(String),
    Container { name: String, path: String },
}

impl Place {
    /// `CONTAINER:PATH`; what begins with a dot or a slash is local whatever colons it has.
    pub(super) fn parse(text: &str) -> Self {
        if text == "-" || text.starts_with('/') || text.starts_with('.') {
            return Self::Local(text.to_owned());
        }
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() => {
                Self::Container { name: name.to_owned(), path: path.to_owned() }
            }
            _ => Self::Local(text.to_owned()),
        }
    }
}

/// The path from the container's root, without `.` and `..`, a last `/` or `/.` kept.
pub(super) fn container_absolute(path: &str) -> String {
    let clean = clean(path);
    match clean.as_str() {
        "/" if ends_in_dot(path) => "/.".to_owned(),
        "/" => clean,
        _ if ends_in_dot(path) => format!("{clean}/."),
        _ if ends_in_separator(path) => format!("{clean}/"),
        _ => clean,
    }
}

/// What a link at `path` of a container points to.
pub(super) fn follow_link(path: &str, target: &str) -> String {
    if target.starts_with('/') {
        return container_absolute(target);
    }
    let parent = path.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
    container_absolute(&format!("{parent}/{target}"))
}

pub(super) fn ends_in_separator(path: &str) -> bool {
    path.ends_with('/')
}

pub(super) fn ends_in_dot(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// The last component.
pub(super) fn file_name(path: &str) -> String {
    let clean = path.trim_end_matches("/.").trim_end_matches('/');
    clean.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(Place::parse("web:/a"), Place::Container { name: "web".into(), path: "/a".into() });
        for local in ["-", "/a:b", "./a:b", "plain", ":x"] {
            assert_eq!(Place::parse(local), Place::Local(local.to_owned()));
        }
    }

    #[test]
    fn container_paths() {
        for (path, absolute) in [
            ("a", "/a"),
            ("/a/../../b", "/b"),
            ("/a/.", "/a/."),
            ("a/", "/a/"),
            ("", "/"),
            (".", "/."),
            ("/a//b", "/a/b"),
        ] {
            assert_eq!(container_absolute(path), absolute);
        }
        assert_eq!(follow_link("/a/b", "c"), "/a/c");
        assert_eq!(follow_link("/a/b", "/c/d"), "/c/d");
        assert_eq!(follow_link("/a/b", "../../../etc"), "/etc");
        assert_eq!((file_name("/a/b/."), file_name("/a/")), ("b".to_owned(), "a".to_owned()));
    }
}
