//! The command line and a registry: credentials, pulling and pushing, lists of manifests.
#![allow(clippy::expect_used, reason = "a test program")]

use ponton_testkit::registry::{PASSWORD, USER};
use ponton_testkit::{Daemon, Ran, Registry, daemon};

fn typed(daemon: &Daemon, client: &str, args: &[&str], input: &str) -> Ran {
    daemon::run(&mut daemon.client(client, args), input.as_bytes())
}

#[test]
fn credentials_open_a_registry_until_logout() {
    let daemon = Daemon::start();
    let registry = Registry::locked(&daemon.namespace());
    let image = registry.reference("app:1");
    daemon.ponton(&["tag", "busybox", &image]).ok();
    assert_ne!(daemon.ponton(&["push", &image]).code, 0, "nobody may push");
    let login = ["login", "-u", USER, "--password-stdin", registry.address()];
    let refused = typed(&daemon, "ponton", &login, "wrong");
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("unauthorized"), "{}", refused.stderr);

    let taken = typed(&daemon, "ponton", &login, &format!("{PASSWORD}\n"));
    assert!(taken.stderr.contains("WARNING! Your credentials are stored unencrypted in"), "{}", taken.stderr);
    assert_eq!(taken.ok(), "Login Succeeded");
    let known = typed(&daemon, "ponton", &["login", registry.address()], "");
    assert!(known.stderr.starts_with("Authenticating with existing credentials... [Username: user]"));
    assert_eq!(known.ok(), "Login Succeeded");

    let pushed = daemon.ponton(&["push", &image]).ok();
    let digest = registry.digest("app:1");
    assert!(pushed.contains(&format!("1: digest: {digest} size: ")), "{pushed}");
    daemon.ponton(&["rmi", &image]).ok();
    // What our client stored, docker's finds, and the other way about.
    assert_eq!(daemon.docker(&["pull", "-q", &image]).ok(), image);

    let out = daemon.ponton(&["logout", registry.address()]).ok();
    assert_eq!(out, format!("Removing login credentials for {}", registry.address()));
    assert_ne!(daemon.ponton(&["push", &image]).code, 0, "nobody may push any more");
    assert_ne!(daemon.docker(&["pull", &image]).code, 0, "nor pull with docker's client");
}

#[test]
fn a_missing_image_is_pulled_as_docker_does() {
    let daemon = Daemon::start();
    let registry = Registry::open(&daemon.namespace());
    let image = registry.reference("tools/app:1");
    daemon.ponton(&["tag", "busybox", &image]).ok();
    daemon.ponton(&["push", "-q", &image]).ok();
    let said = |client: &str, pull: &str| {
        // Forced, so that it need not be there.
        daemon.ponton(&["rmi", "-f", &image]).ok();
        let args = ["run", "--rm", pull, &image, "echo", "hello"];
        let ran = daemon::run(&mut daemon.client(client, &args), b"");
        (ran.code, ran.stdout, ran.stderr.replace("docker", "ponton"))
    };
    for pull in ["--pull=missing", "--pull=always"] {
        let ours = said("ponton", pull);
        assert_eq!((ours.0, ours.1.as_str()), (0, "hello\n"), "{}", ours.2);
        assert!(ours.2.contains("Status: "), "{}", ours.2);
        assert_eq!(ours, said("docker", pull), "{pull}");
    }
    let refused = said("ponton", "--pull=never");
    assert_eq!(refused.0, 125);
    assert_eq!(refused, said("docker", "--pull=never"));
    daemon.ponton(&["pull", "-q", &image]).ok();
}

#[test]
fn lists_of_manifests_are_put_together_and_pushed() {
    let daemon = Daemon::start();
    let registry = Registry::open(&daemon.namespace());
    let list = registry.reference("app:all");
    let images = ["amd64", "arm64"].map(|architecture| {
        let image = registry.reference(&format!("app-{architecture}:1"));
        let platform = format!("linux/{architecture}");
        let busybox = ponton_testkit::image::busybox();
        daemon.ponton(&["import", "--platform", &platform, &busybox.to_string_lossy(), &image]).ok();
        daemon.ponton(&["push", "-q", &image]).ok();
        image
    });
    let create = ["manifest", "create", &list, &images[0], &images[1]];
    assert_eq!(daemon.ponton(&create).ok(), format!("Created manifest list {list}"));
    let again = daemon.ponton(&create);
    assert_eq!(again.stderr, "refusing to amend an existing manifest list with no --amend flag\n");
    daemon.ponton(&["manifest", "annotate", "--variant", "v8", &list, &images[1]]).ok();

    // Docker's client reads what ours has put together.
    let inspect = ["manifest", "inspect", &list];
    let local = daemon.ponton(&inspect).ok();
    assert!(local.contains("\"variant\": \"v8\""), "{local}");
    assert_eq!(daemon.docker(&inspect).ok(), local);

    let pushed = daemon.ponton(&["manifest", "push", "--purge", &list]).ok();
    let digest = registry.digest("app:all");
    assert_eq!(pushed.lines().last(), Some(digest.as_str()), "{pushed}");
    assert_eq!(pushed.matches("Pushed ref ").count(), 2, "{pushed}");
    assert_eq!(daemon.ponton(&inspect).ok(), local, "from the registry");
    let gone = daemon.ponton(&["manifest", "rm", &list]);
    assert_eq!(gone.stderr, format!("No such manifest: {list}\n"));
}
