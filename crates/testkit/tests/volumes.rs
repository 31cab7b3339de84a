//! Volumes and mounts: the same scripts and requests on dockerd and on Ponton, what Ponton alone has, and kills in the
//! middle of what changes a volume.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ponton_testkit::random::{Random, number};
use ponton_testkit::{Daemon, Peer, daemon, leak, wait};
use serde_json::{Value, json};

/// What docker's client does and prints with either engine behind it. `$T` is a directory of the host.
const SCRIPTS: &[&str] = &[
    // names, labels, options
    "docker volume create data; docker volume create data; docker volume ls -q",
    "docker volume inspect -f '{{.Driver}} {{.Name}} {{.Scope}} {{.Options}}' data",
    "docker volume create a; docker volume create a/b; docker volume create -- -x",
    "docker volume create --opt bad=1 v1; docker volume create --opt type=tmpfs v1; docker volume create --opt o=ro v1",
    "docker volume create --opt size=bad v1; docker volume create --opt size=1m v1",
    "docker volume create --label k=v --label l labelled; docker volume ls -q --filter label=k=v; docker volume ls -q --filter label=l --filter label=k=w",
    "docker volume ls -q --filter name=abel; docker volume ls -q --filter driver=local --filter name=data; docker volume ls -q --filter driver=x",
    "docker volume ls -q --filter dangling=maybe",
    "docker volume rm nosuch; docker volume rm -f nosuch; docker volume inspect nosuch",
    "docker volume create -d nosuch v1",
    // who uses it
    "docker create --name user -v data:/d busybox true >/dev/null; docker volume rm data; docker volume ls -q --filter dangling=true; docker rm user; docker volume rm data labelled",
    // content of the image
    "docker run --rm -v etc:/etc busybox true; docker run --rm -v etc:/e busybox sh -c 'ls /e | sort | head -3; stat -c \"%a %u\" /e/passwd /e'",
    "docker run --rm -v etc:/etc busybox sh -c 'echo changed > /etc/motd'; docker run --rm -v etc:/etc busybox cat /etc/motd; docker volume rm etc",
    "docker run --rm -v empty:/etc:nocopy busybox ls /etc | grep -v -E '^(hostname|hosts|resolv.conf)$'; docker volume rm empty",
    "docker run --rm -v full:/new busybox touch /new/file; docker run --rm -v full:/etc busybox ls /etc/file; docker volume rm full",
    "docker run --rm -v /bin busybox sh -c 'ls /bin/busybox; mount | grep -c \" /bin \"'",
    "docker run --rm -v links:/bin busybox true; docker run --rm -v links:/b busybox sh -c '[ $(stat -c %h /b/busybox) -gt 1 ] || [ -L /b/ls ] && echo linked'; docker volume rm links",
    // anonymous ones go with their container
    "docker run -d --name anon -v /x busybox sleep 1000 >/dev/null; docker inspect -f '{{range .Mounts}}{{.Type}} {{.Destination}} {{.Driver}} {{.RW}} {{.Mode}}{{end}}' anon; docker rm -fv anon; docker volume ls -q | wc -l",
    "docker create --name anon -v /x busybox true >/dev/null; docker rm anon; docker volume ls -q | wc -l; docker volume prune -f | grep -c -E '^[0-9a-f]{64}$'; docker volume ls -q | wc -l",
    // mounts
    "docker run --rm -v $T:/x:ro busybox touch /x/y",
    "docker run --rm -v $T/made/deep:/x busybox sh -c 'echo here > /x/y'; cat $T/made/deep/y",
    "docker run --rm --mount type=bind,src=$T/nosuch,dst=/x busybox true 2>&1 | sed \"s#$T#T#\" | head -1",
    "docker run --rm --mount type=bind,src=$T,dst=/x,readonly busybox sh -c 'touch /x/y; ls /x | grep made'",
    "docker run --rm --mount type=tmpfs,dst=/x,tmpfs-size=64k,tmpfs-mode=700 busybox sh -c 'stat -c %a /x; df -k /x | tail -n 1 | awk \"{print \\$2}\"'",
    "docker create --name shown --mount type=tmpfs,dst=/x -v data:/d:ro -v $T:/t:rslave busybox true >/dev/null; docker inspect -f '{{json .Mounts}}' shown | tr '{' '\\n' | sed -e \"s#$T#T#\" -e 's#\"Source\":\"[^\"]*_data\"#S#' | tr -d ',]' | sort; docker rm shown; docker volume rm data",
    "docker run --rm -v data:/x -v $T:/x busybox true 2>&1 | grep -o 'Duplicate mount point: /x'",
    "docker run --rm -v $T:/x:bad busybox true 2>&1 | grep -o 'invalid mode: bad'",
    "for m in /etc:/etc/passwd $T/one:/etc $T/one:/etc/passwd/x; do echo 1 > $T/one; docker run --rm -v $m busybox true > $T/out 2>&1; echo $?; grep -o 'Are you trying.*expected type' $T/out; done",
    "docker run --rm --read-only -v data:/d busybox sh -c 'touch /d/f && touch /f'; docker volume rm data",
    "mkdir -p $T/below && mount -t tmpfs none $T/below && docker run --rm -v $T:/x busybox sh -c 'touch /x/below/f; mount | grep -c /x/below'; docker run --rm --mount type=bind,src=$T,dst=/x,bind-nonrecursive busybox sh -c 'ls /x/below; mount | grep -c /x/below'; umount $T/below",
    // of others
    "docker create --name giver -v data:/d -v $T:/t busybox true >/dev/null; docker run --rm --volumes-from giver busybox sh -c 'touch /d/f /t/g; ls /d'; docker run --rm --volumes-from giver:ro busybox sh -c 'touch /d/h'; docker run --rm --volumes-from giver:bad busybox true; docker run --rm --volumes-from nosuch busybox true; docker rm giver; docker volume rm data",
    // file systems
    "docker volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m,mode=1777 shared; docker run -d --name holder -v shared:/s busybox sh -c 'echo here > /s/f; sleep 1000' >/dev/null; until docker exec holder cat /s/f; do sleep 0.1; done; docker run --rm -v shared:/s busybox sh -c 'cat /s/f; df -k /s | tail -n 1 | awk \"{print \\$2}\"'; docker rm -f holder; docker run --rm -v shared:/s busybox ls /s; docker volume rm shared",
    "mkdir -p $T/src; echo bound > $T/src/f; docker volume create --opt type=none --opt o=bind,ro --opt device=$T/src bound; docker run --rm -v bound:/s busybox sh -c 'cat /s/f; touch /s/g'; docker volume rm bound; ls $T/src",
    "docker volume create --opt type=ext4 --opt device=/nosuch bad; docker run --rm -v bad:/s busybox true >/dev/null 2>&1; echo $?; docker volume rm bad",
    // cp
    "docker create --name cp -v data:/d -v $T:/ro:ro busybox true >/dev/null; echo in > $T/file; docker cp $T/file cp:/d/; docker cp cp:/d/file - | tar -xOf -; docker cp $T/file cp:/ro/x 2>&1 | grep -o 'read-only'; docker cp $T/file cp:/d/nosuch/ 2>&1 | grep 'no such directory'; docker rm cp; docker volume rm data",
    "docker run -d --name cp busybox sleep 1000 >/dev/null; docker exec cp sh -c 'mkdir -p /a/b; echo 1 > /a/f; ln -s f /a/l; ln -s /a /link; chown 7:8 /a/f'; rm -rf $T/o; docker cp cp:/a $T/o; ls $T/o; readlink $T/o/l; docker cp cp:/a/. $T/o/b; ls $T/o/b; docker cp cp:/link $T/o/; readlink $T/o/link; docker cp -L cp:/link $T/o/followed; ls $T/o/followed; docker cp -a cp:/a/f $T/o/kept; stat -c '%u %g' $T/o/kept",
    "docker cp $T/o cp:/new; docker exec cp ls /new; docker cp $T/o cp:/new; docker exec cp ls /new/o; docker cp $T/o/. cp:/a; docker exec cp ls /a; docker cp $T/o/f cp:/a/renamed; docker exec cp cat /a/renamed; docker cp $T/o/f cp:/a/b/; docker exec cp ls /a/b",
    "docker cp $T/o cp:/a/f 2>&1 | grep 'cannot copy'; docker cp cp:/nosuch $T/o 2>&1 | grep -o 'Could not find the file'; docker cp cp:/a $T/o/f 2>&1 | grep -c .; tar -C $T -cf - o | docker cp - cp:/tmp && docker exec cp ls /tmp/o; docker cp cp:/a/f/ $T/o 2>&1 | grep -c .",
    "docker cp -a $T/o/kept cp:/a/; docker exec cp stat -c '%u %g' /a/kept; docker cp $T/o/kept cp:/a/; docker exec cp stat -c '%u %g' /a/kept; docker rm -f cp",
];

#[test]
fn volumes_are_dockers() {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ponton = Daemon::start();
    let mut failures = Vec::new();
    for script in SCRIPTS {
        // Each has the directory for itself when it runs.
        let commands = [peer.client("sh", &["-c", script]), ponton.client("sh", &["-c", script])];
        let [theirs, mine] = commands.map(|mut command| {
            let engine = command.get_envs().find(|(key, _)| *key == "HOME").and_then(|(_, home)| home);
            let directory = Path::new(engine.expect("a home")).join("host");
            fs::create_dir_all(&directory).expect("a directory");
            let ran = daemon::run(command.env("T", &directory), b"");
            let home = directory.to_string_lossy().into_owned();
            let plain = |text: String| ids_hidden(&text.replace(&home, "T"));
            (ran.code, plain(ran.stdout), plain(ran.stderr))
        });
        if (theirs.0, &theirs.1) != (mine.0, &mine.1) {
            failures.push(format!("\n--- {script}\ndockerd: {theirs:?}\nponton:  {mine:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of {} differ:{}", failures.len(), SCRIPTS.len(), failures.concat());
    assert_eq!(leak::mounts_under(&ponton.path("data/volumes")), Vec::<String>::new());
}

fn ids_hidden(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let hide = |word: &str| {
        let core = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if is_id(&core) { word.replace(core, "ID") } else { word.to_owned() }
    };
    words.map(hide).collect()
}

/// Bodies that are refused, by both in the same words.
#[test]
fn refusals_are_dockers() {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ponton = Daemon::start();
    let mut hosts = Vec::new();
    for bind in [
        "/etc:/x:nocopy",
        "vol1:/x:rslave",
        "/etc:/x:bad",
        "/etc:/x:ro,rw",
        "/etc:/x:z,Z",
        "/x:ro",
        "/a:/b:ro:/d",
        "",
        ":/x",
        "/etc:",
        "/etc::ro",
        "/etc:x",
        "/etc:/",
        "/etc:/a/../",
        "a/b:/x",
        "a:/x",
        "/etc:/x:ro,",
    ] {
        hosts.push(json!({"Binds": [bind]}));
    }
    for mount in [
        json!({"Type": "bind", "Source": "/nosuch", "Target": "/x"}),
        json!({"Type": "bind", "Target": "/x"}),
        json!({"Type": "bind", "Source": "/etc"}),
        json!({"Type": "bind", "Source": "etc", "Target": "/x"}),
        json!({"Type": "bind", "Source": "/etc", "Target": "/"}),
        json!({"Type": "bind", "Source": "/etc", "Target": "/x", "BindOptions": {"Propagation": "bad"}}),
        json!({"Type": "bind", "Source": "/etc", "Target": "/x", "VolumeOptions": {}}),
        json!({"Type": "volume", "Target": "/x", "ReadOnly": true}),
        json!({"Type": "volume", "Source": "vol1", "Target": "/x", "BindOptions": {}}),
        json!({"Type": "volume", "Source": "a", "Target": "/x"}),
        json!({"Type": "volume", "Source": "v2", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Name": "nosuch"}}}),
        json!({"Type": "volume", "Source": "v2", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": {"bad": "x"}}}}),
        json!({"Type": "tmpfs", "Source": "a", "Target": "/x"}),
        json!({"Type": "tmpfs", "Target": "/x", "BindOptions": {}}),
        json!({"Type": "bad", "Source": "a", "Target": "/x"}),
        json!({"Source": "a", "Target": "/x"}),
    ] {
        hosts.push(json!({"Mounts": [mount]}));
    }
    hosts.extend([
        json!({"Tmpfs": {"x": ""}}),
        json!({"Tmpfs": {"/": ""}}),
        json!({"VolumesFrom": ["nosuch"]}),
        json!({"VolumesFrom": [""]}),
        json!({"VolumesFrom": ["nosuch:bad"]}),
        json!({"Binds": ["/etc:/x"], "Mounts": [{"Type": "bind", "Source": "/usr", "Target": "/x"}]}),
        json!({"Binds": ["v1:/x"], "VolumeDriver": "nosuch"}),
    ]);
    let mut failures = Vec::new();
    for host in hosts {
        let body = json!({"Image": "busybox", "HostConfig": host});
        let path = "/v1.41/containers/create?name=refused";
        let (theirs, mine) = (peer.api().post(path, &body), ponton.api().post(path, &body));
        // Until 23.0 some of the client's faults were the server's.
        let status = if theirs.status == 500 { 400 } else { theirs.status };
        let message =
            |text: &str| serde_json::from_str::<Value>(text).ok().map(|value| value["message"].clone());
        if (status, message(&theirs.text())) != (mine.status, message(&mine.text())) || status < 400 {
            failures.push(format!(
                "\n--- {body}\n{} {}{} {}",
                theirs.status,
                theirs.text(),
                mine.status,
                mine.text()
            ));
        }
    }
    assert!(failures.is_empty(), "{} differ:{}", failures.len(), failures.concat());
    let update = ponton.api().request("PUT", "/volumes/vol1?version=1", Some(&json!({})));
    assert_eq!(update.status, 503, "{}", update.text());
    assert!(ponton.api().get("/volumes").json()["Volumes"].as_array().expect("a list").is_empty());
}

/// Events of volumes in their order, with what dockerd says in each.
#[test]
fn events_are_dockers() {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ponton = Daemon::start();
    let script = "docker volume create one >/dev/null; docker create --name user -v one:/x -v two:/y:ro busybox sleep 1000 >/dev/null; \
        docker start user >/dev/null; docker stop -t 0 user >/dev/null; docker rm user >/dev/null; docker volume rm one two >/dev/null; \
        docker events --since 0 --until $(($(date +%s) + 1)) --filter type=volume --filter type=container --format \
        '{{.Type}} {{.Action}} {{.Actor.Attributes.destination}} {{index .Actor.Attributes \"read/write\"}} {{.Actor.Attributes.driver}}'";
    let [theirs, mine] = [peer.client("sh", &["-c", script]), ponton.client("sh", &["-c", script])]
        .map(|mut command| daemon::run(&mut command, b"").ok());
    // Which of two mounts comes first is chance with dockerd, and 20.10 tells of a creation where nothing was made.
    let in_any_order = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let position = |name: &str| lines.iter().position(|line| line.starts_with(name));
        let order = [
            "volume mount",
            "container start",
            "container die",
            "volume unmount",
            "container destroy",
            "volume destroy",
        ];
        let order: Vec<_> =
            order.iter().map(|name| position(name).unwrap_or_else(|| panic!("{name} in {text}"))).collect();
        assert!(order.is_sorted(), "{text}");
        lines.retain(|line| line.starts_with("volume") && !line.contains(" create"));
        lines.sort();
        lines
    };
    assert_eq!(in_any_order(&theirs), in_any_order(&mine));
    assert_eq!(mine.matches("volume create").count(), 2);
}

/// What a path of the host says of its owner.
fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::metadata(path).expect("metadata");
    (metadata.uid(), metadata.gid())
}

#[test]
fn ids_are_mapped() {
    let ponton = Daemon::start();
    let source = ponton.path("mapped");
    fs::create_dir(&source).expect("a directory");
    fs::write(source.join("theirs"), "").expect("a file");
    for path in [source.clone(), source.join("theirs")] {
        chown(path, Some(4711), Some(4712)).expect("chown");
    }
    let bind = |mode: &str| format!("{}:/x:{mode}", source.display());
    let run = |mode: &str, user: &str, script: &str| {
        ponton.docker(&["run", "--rm", "-u", user, "-v", &bind(mode), "busybox", "sh", "-c", script])
    };
    if run("idmap", "0", "true").code == 125 {
        println!("the file system of {} cannot map ids", source.display());
        return;
    }
    // The owner's files are the user's, and what the user makes is the owner's.
    assert_eq!(run("idmap", "0", "stat -c '%u %g' /x /x/theirs; touch /x/root").ok(), "0 0\n0 0");
    assert_eq!(owner(&source.join("root")), (4711, 4712));
    assert_eq!(run("idmap", "1000:1001", "stat -c '%u %g' /x; touch /x/user").ok(), "1000 1001");
    assert_eq!(owner(&source.join("user")), (4711, 4712));
    assert_eq!(run("idmap", "daemon", "id -u; stat -c %u /x/theirs").ok(), "1\n1");
    let maps = "ro,idmap=uids=4711-5-1;gids=4712-6-1";
    assert_eq!(run(maps, "0", "stat -c '%u %g' /x/theirs").ok(), "5 6");
    let refused = run("idmap=uids=x", "0", "true");
    assert!(refused.code == 125 && refused.stderr.contains("invalid idmap 'uids=x'"), "{}", refused.stderr);
    let mount = format!("type=bind,src={},dst=/x,idmap", source.display());
    assert_eq!(
        ponton.ponton(&["run", "--rm", "--mount", &mount, "busybox", "stat", "-c", "%u", "/x"]).ok(),
        "0"
    );
}

#[test]
fn parts_and_images_are_mounted() {
    let ponton = Daemon::start();
    ponton
        .docker(&[
            "run",
            "--rm",
            "-v",
            "vol1:/v",
            "busybox",
            "sh",
            "-c",
            "mkdir -p /v/a/b; echo deep > /v/a/b/f; ln -s /etc /v/out",
        ])
        .ok();
    let part = |subpath: &str| {
        let mount = format!("type=volume,src=vol1,dst=/x,volume-subpath={subpath}");
        ponton.docker(&["run", "--rm", "--mount", &mount, "busybox", "sh", "-c", "cat /x/f || ls /x"])
    };
    assert_eq!(part("a/b").ok(), "deep");
    let missing = part("nosuch");
    assert!(missing.code != 0 && missing.stderr.contains("nosuch"), "{}", missing.stderr);
    // A link in the volume leads nowhere outside of it.
    assert_ne!(part("out").code, 0);
    let image = |more: &str, script: &str| {
        let mount = format!("type=image,src=busybox,dst=/x{more}");
        ponton.docker(&["run", "--rm", "--mount", &mount, "busybox", "sh", "-c", script])
    };
    assert_eq!(image("", "test -x /x/bin/busybox && ! touch /x/y 2>/dev/null && echo whole").ok(), "whole");
    assert_eq!(image(",image-subpath=etc", "test -f /x/passwd && echo part").ok(), "part");
}

#[test]
fn volumes_are_backed_up_restored_and_cloned() {
    let mut ponton = Daemon::start();
    let fill = "mkdir /v/d; echo one > /v/d/f; ln /v/d/f /v/hard; ln -s d/f /v/soft; chown 7:8 /v/d/f; chmod 4711 /v/d/f; chmod 1770 /v";
    ponton.docker(&["run", "--rm", "-v", "vol1:/v", "busybox", "sh", "-c", fill]).ok();
    let look = |daemon: &Daemon, name: &str| {
        let script = "cat /v/soft; stat -c '%u %g %a %h' /v/d/f; stat -c %a /v; ls -A /v";
        daemon.docker(&["run", "--rm", "-v", &format!("{name}:/v"), "busybox", "sh", "-c", script]).ok()
    };
    let whole = look(&ponton, "vol1");
    assert_eq!(whole, "one\n7 8 4711 2\n1770\nd\nhard\nsoft");
    let file = ponton.path("backup.tar").to_string_lossy().into_owned();
    ponton.ponton(&["volume", "backup", "-o", &file, "vol1"]).ok();
    ponton.ponton(&["volume", "restore", "-i", &file, "vol2"]).ok();
    assert_eq!(look(&ponton, "vol2"), whole);
    ponton.ponton(&["volume", "clone", "vol1", "vol3"]).ok();
    assert_eq!(look(&ponton, "vol3"), whole);
    let again = ponton.ponton(&["volume", "clone", "vol1", "vol3"]);
    assert!(again.code != 0 && again.stderr.contains("exists already"), "{}", again.stderr);
    // What is there stays, unless it is to be replaced.
    ponton.docker(&["run", "--rm", "-v", "vol2:/v", "busybox", "touch", "/v/new"]).ok();
    let refused = ponton.ponton(&["volume", "restore", "-i", &file, "vol2"]);
    assert!(refused.code != 0 && refused.stderr.contains("not empty"), "{}", refused.stderr);
    ponton.ponton(&["volume", "restore", "-f", "-i", &file, "vol2"]).ok();
    assert_eq!(look(&ponton, "vol2"), whole);
    // Half an archive is none.
    let tar = fs::read(&file).expect("the archive");
    fs::write(&file, &tar[..tar.len() / 2 - 100]).expect("half of it");
    assert_ne!(ponton.ponton(&["volume", "restore", "-i", &file, "half"]).code, 0);
    assert_ne!(ponton.ponton(&["volume", "inspect", "half"]).code, 0);
    // Its writer stands still while a client reads, also when the daemon is killed, and goes on afterwards.
    ponton
        .docker(&[
            "run",
            "-d",
            "--name",
            "writer",
            "-v",
            "big:/v",
            "busybox",
            "sh",
            "-c",
            "dd if=/dev/zero of=/v/f bs=1M count=64 2>/dev/null; sleep 1000",
        ])
        .ok();
    let path = ponton.path("data/volumes/big/_data/f");
    wait::until("a large file", || fs::metadata(&path).ok().filter(|file| file.len() == 64 << 20));
    let state =
        |daemon: &Daemon| daemon.api().get("/containers/writer/json").json()["State"]["Status"].clone();
    for kills in [false, true] {
        let reading = ponton.api().open("GET", "/ponton/volumes/big/backup", "", b"").expect("a connection");
        wait::until("the writer's freeze", || (state(&ponton) == "paused").then_some(()));
        if kills {
            ponton.kill_and_restart();
        }
        drop(reading);
        wait::until("the writer's thaw", || (state(&ponton) == "running").then_some(()));
    }
}

/// A volume is empty or whole after each kill, and the next container finds it whole.
#[test]
fn killed_while_volumes_are_filled() {
    let kills = number("PONTON_VOLUME_KILLS", 12);
    let mut random = Random::new(number("PONTON_SEED", 0xF111));
    let mut ponton = Daemon::start();
    let make = "mkdir /tree; for i in $(seq 40); do mkdir /tree/$i; for j in $(seq 25); do echo $i.$j > /tree/$i/$j; done; done";
    ponton.docker(&["run", "--name", "maker", "busybox", "sh", "-c", make]).ok();
    ponton.docker(&["commit", "maker", "tree:1"]).ok();
    let file = ponton.path("tree.tar").to_string_lossy().into_owned();
    ponton.docker(&["run", "--rm", "-v", "model:/tree", "tree:1", "true"]).ok();
    ponton.ponton(&["volume", "backup", "-q", "-o", &file, "model"]).ok();
    let names = |path: &Path| -> usize {
        let mut left = vec![path.to_owned()];
        let mut count = 0;
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                count += 1;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    left.push(entry.path());
                }
            }
        }
        count
    };
    let whole = 40 + 40 * 25;
    for kill in 0..kills {
        let (filled, restored) = (format!("filled{kill}"), format!("restored{kill}"));
        let spawn = |program: &str, args: &[&str]| {
            ponton
                .client(program, args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("a client")
        };
        let clients = [
            spawn("docker", &["create", "-v", &format!("{filled}:/tree"), "tree:1", "true"]),
            spawn("ponton", &["volume", "restore", "-i", &file, &restored]),
            spawn("ponton", &["volume", "restore", "-f", "-i", &file, "model"]),
            spawn("ponton", &["volume", "rm", &format!("filled{}", kill.max(1) - 1)]),
        ];
        std::thread::sleep(Duration::from_millis(random.next(400)));
        ponton.kill_and_restart();
        for mut client in clients {
            client.wait().expect("a client's end");
        }
        for name in [&filled, &restored, "model"] {
            let directory = ponton.path("data/volumes").join(name);
            let data = directory.join("_data");
            let count = names(&data);
            assert!(
                count == whole || count == 0 && name != "model",
                "{name} has {count} names after kill {kill}"
            );
            let others = names(&directory).saturating_sub(count);
            assert!(others <= 1, "{name} has something beside its content");
        }
        let run =
            ["run", "--rm", "-v", &format!("{filled}:/tree"), "tree:1", "sh", "-c", "find /tree | wc -l"];
        assert_eq!(ponton.docker(&run).ok(), (whole + 1).to_string());
    }
    assert_eq!(leak::mounts_under(&ponton.path("data/volumes")), Vec::<String>::new());
}
