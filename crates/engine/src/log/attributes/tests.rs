use ponton_api::container::{Config, HostConfig, NetworkingConfig};

use super::*;

fn settings() -> Settings {
    let pairs = [("a", "1 2"), ("app.name", "web"), ("other", "x")];
    Settings {
        id: "0123456789abcdef".repeat(4),
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        image: format!("sha256:{}", "f".repeat(64)),
        path: "sh".into(),
        args: vec!["-c".into(), "true".into()],
        config: Config {
            image: "busybox".into(),
            env: Some(vec!["FOO=b=ar".into(), "PATH=/bin".into()]),
            labels: Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            ..Config::default()
        },
        host_config: HostConfig::default(),
        networking: NetworkingConfig::default(),
        mounts: Vec::new(),
        links: Vec::new(),
        ids: None,
        driver: "overlay2".into(),
    }
}

fn options(pairs: &[(&str, &str)]) -> StringMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_tag_has_its_fields_filled_in() {
    let settings = settings();
    let facts = Facts { settings: &settings, name: "web", hostname: "host" };
    let tag = |template| facts.tag(&options(&[("tag", template)]));
    assert_eq!(facts.tag(&options(&[])).unwrap(), "0123456789ab");
    assert_eq!(tag("").unwrap(), "0123456789ab");
    assert_eq!(tag("plain").unwrap(), "plain");
    assert_eq!(tag("{{.ImageName}}/{{ .Name }}/{{.ID}}!").unwrap(), "busybox/web/0123456789ab!");
    assert_eq!(tag("{{.Command}} {{.ImageID}} {{.ContainerName}}").unwrap(), "sh -c true sha256:fffff /web");
    assert_eq!(tag("{{.Name").unwrap_err().message, "template: log-tag:1: unclosed action");
    assert_eq!(
        tag("{{.Foo}}").unwrap_err().message,
        "template: log-tag:1:2: executing \"log-tag\" at <.Foo>: can't evaluate field Foo in type *logger.Info"
    );
    assert_eq!(tag("{{json .}}").unwrap_err().kind, crate::ErrorKind::NotImplemented);
}

#[test]
fn labels_and_variables_are_chosen_by_name_and_pattern() {
    let settings = settings();
    let facts = Facts { settings: &settings, name: "web", hostname: "host" };
    let json = |pairs| facts.json(&options(pairs)).unwrap();
    assert_eq!(json(&[]), "");
    assert_eq!(json(&[("labels", "a,missing"), ("env", "FOO")]), r#"{"FOO":"b=ar","a":"1 2"}"#);
    assert_eq!(
        json(&[("labels-regex", r"^app\."), ("env-regex", "^F")]),
        r#"{"FOO":"b=ar","app.name":"web"}"#
    );
    assert_eq!(json(&[("labels", "other"), ("tag", "{{.Name}}")]), r#"{"other":"x","tag":"web"}"#);
    assert!(
        check(&options(&[("labels-regex", "(")])).unwrap_err().message.starts_with("error parsing regexp: ")
    );
}
