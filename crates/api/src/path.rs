//! Paths of requests, cleaned by their text alone, as Docker does before anything is looked up.

/// From the root, without empty, `.` and `..` parts; nothing is above the root.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, cleaned) in
            [("/a//b/./../c/", "/a/c"), ("/../..", "/"), ("", "/"), ("a", "/a"), ("/a/...", "/a/...")]
        {
            assert_eq!(clean(path), cleaned);
        }
    }
}
