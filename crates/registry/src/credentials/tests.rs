use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn basic(username: &str, password: &str) -> Credentials {
    Credentials::Basic { username: username.to_owned(), password: password.to_owned() }
}

#[test]
fn what_docker_wrote_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    // "user:p:w" in base64, with and without padding.
    fs::write(
        &path,
        r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dXNlcjpwOnc="},
            "http://old.example/v1/": {"auth": "dXNlcjpwOnc"},
            "gcr.io": {"auth": "dXNlcjo=", "identitytoken": "idt"},
            "reg.example:5000": {"registrytoken": "rt"},
            "plain.example": {"username": "u", "password": "p"},
            "empty.example": {},
            "bad.example": {"auth": "%%%"}
        }, "HttpHeaders": {"x": "y"}}"#,
    )
    .unwrap();
    let store = CredentialStore::at(path);
    for (registry, expected) in [
        ("docker.io", basic("user", "p:w")),
        ("index.docker.io", basic("user", "p:w")),
        ("old.example", basic("user", "p:w")),
        ("gcr.io", Credentials::IdentityToken("idt".to_owned())),
        ("reg.example:5000", Credentials::RegistryToken("rt".to_owned())),
        ("reg.example", Credentials::Anonymous),
        ("plain.example", basic("u", "p")),
        ("empty.example", Credentials::Anonymous),
        ("nobody.example", Credentials::Anonymous),
    ] {
        assert_eq!(store.get(registry).unwrap(), expected, "{registry}");
    }
    assert!(matches!(store.get("bad.example"), Err(Error::Credentials { .. })));
    assert_eq!(store.username("gcr.io").unwrap().as_deref(), Some("user"));
    assert_eq!(CredentialStore::at("/nonexistent/x".into()).get("a").unwrap(), Credentials::Anonymous);
}

#[test]
fn what_is_stored_is_found_and_all_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept.json");
    let path = folder.path().join("new/config.json");
    fs::create_dir(folder.path().join("new")).unwrap();
    fs::write(&kept, r#"{"psFormat": "x", "auths": {"http://r.example/v1/": {"auth": "YTpi"}}}"#).unwrap();
    symlink(&kept, &path).unwrap();
    let store = CredentialStore::at(path.clone());
    assert!(store.store("r.example", "me", &basic("me", "s\u{e9}cret")).unwrap());
    assert!(store.store("docker.io", "hub", &Credentials::IdentityToken("idt".to_owned())).unwrap());
    assert_eq!(store.get("r.example").unwrap(), basic("me", "s\u{e9}cret"));
    assert_eq!(store.username("docker.io").unwrap().as_deref(), Some("hub"));
    assert_eq!(
        store.all().unwrap(),
        [
            ("https://index.docker.io/v1/".to_owned(), Credentials::IdentityToken("idt".to_owned())),
            ("r.example".to_owned(), basic("me", "s\u{e9}cret")),
        ]
    );
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&kept).unwrap();
    assert!(text.contains("\"psFormat\": \"x\"") && !text.contains("http://r.example"), "{text}");
    assert!(store.erase("r.example").unwrap());
    assert!(!store.erase("r.example").unwrap());
    assert_eq!(store.get("r.example").unwrap(), Credentials::Anonymous);
    assert_eq!(store.get("docker.io").unwrap(), Credentials::IdentityToken("idt".to_owned()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
}

/// A helper that keeps each server's credentials in a file of a folder; found by a name with a path, which only
/// this test makes.
fn fake_helper(folder: &std::path::Path) -> Helper {
    let program = folder.join("docker-credential-fake");
    let script = r#"#!/bin/sh
cd "${0%/*}" || exit 2
input=$(cat)
case $1 in
store) printf %s "$input" > stored ;;
get) grep -q "\"ServerURL\":\"$input\"" stored 2>/dev/null && cat stored || { echo credentials not found in native keychain; exit 1; } ;;
erase) rm -f stored ;;
list) echo '{"https://index.docker.io/v1/":"me"}' ;;
*) echo no such word; exit 3 ;;
esac
"#;
    // Written by another process: a descriptor of ours could be inherited by a child of another test's, and the
    // program be busy.
    let written = std::process::Command::new("/bin/sh")
        .args(["-c", r#"printf %s "$1" > "$0" && chmod 755 "$0""#])
        .arg(&program)
        .arg(script)
        .status();
    assert!(written.unwrap().success());
    Helper::at(&program)
}

#[test]
fn helpers_keep_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let helper = fake_helper(folder.path());
    let server = server("docker.io");
    assert_eq!(helper.get(server).unwrap(), Credentials::Anonymous);
    for credentials in [basic("me", "a\"b"), Credentials::IdentityToken("idt".to_owned())] {
        helper.store(server, &credentials).unwrap();
        assert_eq!(helper.get(server).unwrap(), credentials);
        assert_eq!(helper.get("other.example").unwrap(), Credentials::Anonymous);
    }
    assert!(fs::read_to_string(folder.path().join("stored")).unwrap().contains("\"Username\":\"<token>\""));
    assert_eq!(helper.list().unwrap(), [server]);
    helper.erase(server).unwrap();
    assert_eq!(helper.get(server).unwrap(), Credentials::Anonymous);
    assert!(helper.store(server, &Credentials::Anonymous).is_err());
}

#[test]
fn helpers_that_are_missing_or_odd_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let text = r#"{"auths": {"a.example": {"auth": "YTpi"}, "b.example": {"auth": "YTpi"}},
        "credHelpers": {"a.example": "surely-not-installed"}}"#;
    fs::write(&path, text).unwrap();
    let store = CredentialStore::at(path.clone());
    let error = store.get("a.example").unwrap_err().to_string();
    assert!(error.starts_with("docker-credential-surely-not-installed get: "), "{error}");
    assert_eq!(store.get("b.example").unwrap(), basic("a", "b"));
    fs::write(&path, r#"{"credsStore": "../../bin/sh"}"#).unwrap();
    assert!(store.get("b.example").is_err());
    fs::write(&path, "[").unwrap();
    let error = store.get("b.example").unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
}
