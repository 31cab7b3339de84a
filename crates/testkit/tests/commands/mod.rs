//! The commands that are compared. They run in this order, each client on its own engine: a later one may use what an
//! earlier one made. `$D` is the client.

/// What of a run is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    /// Exit code, standard output and standard error.
    All,
    /// Exit code and standard output; the text of the error is in other words.
    Output,
    /// The exit code alone.
    ExitCode,
    /// As `Output`, for what only docker's client does.
    DockerClientOnly,
}

/// A script, and what of it is compared.
pub(crate) struct Compared {
    pub(crate) script: &'static str,
    pub(crate) compare: Compare,
}

const fn all(script: &'static str) -> Compared {
    Compared { script, compare: Compare::All }
}
/// The words of errors differ: ours say what to do; those of the peer name its parts (runc, containerd).
const fn output(script: &'static str) -> Compared {
    Compared { script, compare: Compare::Output }
}
/// The output holds what differs by nature: times, addresses, versions.
const fn code(script: &'static str) -> Compared {
    Compared { script, compare: Compare::ExitCode }
}
const fn docker_only(script: &'static str) -> Compared {
    Compared { script, compare: Compare::DockerClientOnly }
}

pub(crate) const COMMANDS: &[Compared] = &[
    // run: output, exit codes, streams
    all("$D run --rm busybox true"),
    all("$D run --rm busybox false"),
    all("$D run --rm busybox echo hello world"),
    all("$D run --rm busybox sh -c 'echo out; echo err >&2; exit 42'"),
    all("$D run --rm -i busybox cat"),
    all("$D run --rm -i busybox sh -c 'wc -l; echo done'"),
    all("printf 'a\\nb\\n' | $D run --rm -i busybox tr a-z A-Z"),
    all("$D run --rm busybox sh -c 'kill -9 $$'"),
    all("$D run --rm busybox sh -c 'kill -TERM $$; sleep 1'"),
    output("$D run --rm busybox nosuchcommand"),
    output("$D run --rm busybox /etc"),
    output("$D run --rm busybox /etc/passwd"),
    output("$D run --rm nosuch.invalid/image true 2>/dev/null"),
    output("$D run --nosuchflag busybox true"),
    output("$D run --rm -m 1k busybox true"),
    output("$D run --rm -v relative/path/x:/x busybox true"),
    output("$D run --rm --cap-add NOSUCH busybox true"),
    output("$D run --rm --restart always busybox true"),
    // what a container sees of itself
    all("$D run --rm -e A=1 -e B busybox env | grep -v HOSTNAME | sort"),
    all(
        "printf 'X=1\\n# no\\nY=2 3\\n' > /tmp/env.$$; $D run --rm --env-file /tmp/env.$$ busybox env | grep -v HOSTNAME | sort; rm /tmp/env.$$",
    ),
    all("$D run --rm -w /tmp/new/dir busybox pwd"),
    all("$D run --rm -u 65534:65534 busybox id"),
    all("$D run --rm -u nobody busybox id"),
    all("$D run --rm -u daemon:users busybox id"),
    output("$D run --rm -u nosuchuser busybox id"),
    all("$D run --rm -h myhost busybox hostname"),
    all("$D run --rm -h myhost busybox grep -c myhost /etc/hosts"),
    all("$D run --rm --entrypoint echo busybox from entrypoint"),
    all("$D run --rm --read-only busybox touch /x"),
    all("$D run --rm --read-only --tmpfs /x busybox sh -c 'touch /x/y && ls /x'"),
    all(
        "$D run --rm --tmpfs /x:size=64k,mode=700 busybox sh -c 'stat -c %a /x; df -k /x | tail -n 1 | awk \"{print \\$2}\"'",
    ),
    all("$D run --rm busybox grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status"),
    all("$D run --rm --cap-drop ALL --cap-add NET_BIND_SERVICE busybox grep CapEff /proc/self/status"),
    all("$D run --rm --cap-drop chown busybox chown 1 /tmp"),
    all("$D run --rm busybox grep -E 'Seccomp:|NoNewPrivs' /proc/self/status"),
    all("$D run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status"),
    all("$D run --rm --security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status"),
    output("$D run --rm busybox unshare -m true"),
    output("$D run --rm busybox mount -t tmpfs none /tmp"),
    all("$D run --rm busybox sh -c 'ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | wc -w'"),
    all("$D run --rm busybox sh -c 'echo 1 > /proc/sys/kernel/panic'"),
    all("$D run --rm busybox ls /dev"),
    all(
        "$D run --rm busybox sh -c 'ls -l /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty | awk \"{print \\$1, \\$5, \\$6}\"'",
    ),
    all("$D run --rm busybox sh -c 'cat /proc/1/comm; echo $$'"),
    all("$D run --rm --init busybox cat /proc/1/comm"),
    all("$D run --rm --init busybox sh -c 'exit 3'"),
    all("$D run --rm --sysctl net.ipv4.ip_forward=1 busybox cat /proc/sys/net/ipv4/ip_forward"),
    output("$D run --rm --sysctl kernel.panic=1 busybox true"),
    all("$D run --rm --ulimit nofile=100:200 busybox sh -c 'ulimit -n; ulimit -Hn'"),
    all("$D run --rm -m 64m busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes"),
    all("$D run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    all("$D run --rm --cpu-shares 512 busybox cat /sys/fs/cgroup/cpu/cpu.shares"),
    all("$D run --rm --pids-limit 7 busybox cat /sys/fs/cgroup/pids/pids.max"),
    all("$D run --rm -v /etc/hostname:/x:ro busybox sh -c 'echo > /x'"),
    all(
        "mkdir -p /tmp/bind.$$; echo content > /tmp/bind.$$/f; $D run --rm -v /tmp/bind.$$:/x busybox sh -c 'cat /x/f; touch /x/g'; ls /tmp/bind.$$; rm -r /tmp/bind.$$",
    ),
    all("$D run --rm --network none busybox ls /sys/class/net"),
    all("$D run --rm --network none busybox ping -c 1 -W 1 127.0.0.1 | sed -n 1p"),
    all("$D run --rm busybox sh -c 'ls /sys/class/net'"),
    all(
        "$D run --rm busybox sh -c 'ping -c 1 -W 2 $(ip route | awk \"/default/ {print \\$3}\") | grep received'",
    ),
    all("$D run --rm busybox cat /etc/resolv.conf"),
    // Sorted: 20.10 writes the search domains first, later versions the servers.
    all("$D run --rm --dns 10.9.8.7 --dns-search example.org busybox sort /etc/resolv.conf"),
    all("$D run --rm --add-host a.b:1.2.3.4 busybox grep -F a.b /etc/hosts"),
    all("$D run --rm --shm-size 1m busybox sh -c 'df -k /dev/shm | tail -n 1 | awk \"{print \\$2}\"'"),
    // Without control groups: ours joins no cpuset hierarchy unless there are limits of it, and no named one. Without
    // what is masked by a file: later versions mask /proc/interrupts too, and the file is the host's or the container's
    // /dev/null.
    all(
        "$D run --rm busybox mount | awk '{print $3, $5}' | grep -vE '^/(sys/fs/cgroup|proc/(interrupts|keys|timer_list))' | sort -u",
    ),
    all("$D run --rm busybox sh -c 'cat /proc/keys /proc/timer_list | wc -c'"),
    // a container's life
    all("$D run -d --name life --label k=v -e E=1 busybox sleep 1000"),
    // Ours says what to do, too.
    output("$D run -d --name life busybox sleep 1000"),
    all("$D ps --format '{{.Names}} {{.Image}} {{.Command}} {{.State}}'"),
    all("$D ps -q | wc -l"),
    all("$D ps --filter label=k=v --format '{{.Names}} {{.Labels}}'"),
    all("$D ps --filter name=nosuch --format '{{.Names}}'"),
    all("$D ps --filter status=running --filter ancestor=busybox --format '{{.Names}}'"),
    all(
        "$D inspect -f '{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.Name}} {{.Path}} {{.Args}}' life",
    ),
    all("$D inspect -f '{{json .Config.Cmd}} {{json .Config.Env}} {{json .HostConfig.RestartPolicy}}' life"),
    all("$D inspect -f '{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}' life"),
    all("$D inspect nosuch"),
    // templates
    all("$D inspect -f '{{define \"x\"}}[{{.}}]{{end}}{{template \"x\" .Name}}' life"),
    all("$D inspect -f '{{block \"x\" .Name}}<{{.}}>{{end}}{{template \"x\"}}' life"),
    all("$D inspect -f '{{range $i, $e := .Args}}{{if $i}}{{break}}{{end}}{{continue}}{{end}}end' life"),
    all("$D inspect -f '{{html \"<a href=\\\"x\\\">&\" .Name 1 true}}' life"),
    all("$D inspect -f '{{js \"<b> & \\\"q\\\" \\\\ = é\"}} {{.Name | js}}' life"),
    all("$D inspect -f '{{urlquery \"a b&c=d/é~\"}} {{.Name | js | urlquery}}' life"),
    output("$D inspect -f '{{template \"nosuch\"}}' life"),
    output("$D inspect -f '{{define \"x\"}}a{{end}}{{define \"x\"}}b{{end}}' life"),
    output("$D inspect -f '{{break}}' life"),
    all("$D exec life echo in exec"),
    all("$D exec life sh -c 'exit 9'"),
    all("$D exec -i life cat"),
    all("$D exec -e X=y -w /tmp -u nobody life sh -c 'echo $X; pwd; id -u'"),
    all("$D exec nosuch true"),
    all("$D top life -o pid,args | awk 'NR>1 {$1=\"\"; print}'"),
    all(
        "$D pause life && $D inspect -f '{{.State.Status}}' life; $D exec life true; $D unpause life && $D inspect -f '{{.State.Status}}' life",
    ),
    all("$D rename life living && $D inspect -f '{{.Name}}' living; $D rename living life"),
    all(
        "echo data > /tmp/cp.$$; $D cp /tmp/cp.$$ life:/root/copied && $D exec life cat /root/copied; rm /tmp/cp.$$",
    ),
    all("$D cp life:/etc/passwd - | tar -tf -"),
    all("$D cp life:/etc /tmp/cpd.$$ && ls /tmp/cpd.$$ | grep -c -E 'passwd|group'; rm -r /tmp/cpd.$$"),
    all("$D cp life:/nosuch /tmp/x"),
    // Not in /: there docker's client shows a path with two slashes.
    all("$D cp /tmp/nosuch life:/tmp/"),
    output("$D rm life"),
    all("$D kill -s USR1 life; $D inspect -f '{{.State.Running}}' life"),
    all("$D kill life && $D wait life"),
    all("$D inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Pid}}' life"),
    output("$D kill life"),
    all("$D stop life"),
    all("$D start life && $D inspect -f '{{.State.Status}}' life"),
    all("$D restart -t 0 life && $D inspect -f '{{.State.Status}} {{.RestartCount}}' life"),
    all("$D stop -t 0 life && $D wait life"),
    all("$D rm life"),
    all("$D rm life"),
    all("$D start nosuch"),
    all("$D stop nosuch"),
    all("$D wait nosuch"),
    all("$D logs nosuch"),
    // logs
    all("$D run --name logs busybox sh -c 'for i in 1 2 3 4 5; do echo line $i; done; echo err >&2'"),
    all("$D logs logs 2>/dev/null"),
    all("$D logs logs 2>&1 >/dev/null"),
    all("$D logs --tail 0 logs"),
    all("$D logs -f logs 2>/dev/null"),
    all("$D logs --since 2100-01-01 logs"),
    all("$D logs --until 2000-01-01 logs"),
    all("$D rm logs"),
    // One stream only: which of the lines of two pipes was read last is chance.
    all(
        "$D run --name tail busybox seq 5 >/dev/null; $D logs --tail 2 tail; $D logs -t --tail 1 tail | awk '{print NF}'; $D rm tail",
    ),
    all(
        "$D run -d --name nostdin busybox sh -c 'cat; echo eof' >/dev/null; $D wait nostdin; $D logs nostdin; $D rm nostdin",
    ),
    // create, start -a, attach
    all(
        "$D create --name created busybox sh -c 'echo started; exit 5' | wc -c; $D start -a created; $D inspect -f '{{.State.ExitCode}}' created; $D rm created",
    ),
    all(
        "$D create --name never busybox true >/dev/null; $D inspect -f '{{.State.Status}} {{.State.StartedAt}}' never; $D rm never",
    ),
    all(
        "$D run -d --name policy --restart on-failure:2 busybox false >/dev/null; until [ $($D inspect -f '{{.RestartCount}}{{.State.Status}}' policy) = 2exited ]; do :; done; $D inspect -f '{{.State.ExitCode}}' policy; $D rm policy",
    ),
    all(
        "$D run --rm -d --name gone busybox sleep 1000 >/dev/null; $D stop -t 0 gone; until ! $D inspect gone >/dev/null 2>&1; do :; done; echo removed",
    ),
    // 20.10 says it of no container whose end it hears of first, which is chance.
    all(
        "for i in $(seq 50); do $D run -d --name oom -m 8m busybox sh -c 'tail /dev/zero' >/dev/null; code=$($D wait oom); killed=$($D inspect -f '{{.State.OOMKilled}}' oom); $D rm oom >/dev/null; [ $killed = true ] && break; done; echo $code $killed",
    ),
    // published ports
    all(
        "$D run -d --name web -p 127.0.0.1:18080:80 busybox sh -c 'mkdir /www; echo page > /www/index.html; exec httpd -f -h /www' >/dev/null; for i in $(seq 600); do busybox wget -q -O - http://127.0.0.1:18080/ 2>/dev/null && break; sleep 0.1; done",
    ),
    all("$D port web"),
    all("$D port web 80"),
    output("$D port web 81"),
    output("$D run --rm -p 127.0.0.1:18080:80 busybox true"),
    all("$D inspect -f '{{json .NetworkSettings.Ports}} {{json .HostConfig.PortBindings}}' web"),
    all("$D rm -f web"),
    // images
    all("$D images --format '{{.Repository}}:{{.Tag}}'"),
    all("$D tag busybox again:v1 && $D images --format '{{.Repository}}:{{.Tag}}' | sort"),
    all("$D rmi again:v1"),
    all("$D rmi nosuch"),
    output("$D tag nosuch x"),
    all(
        "$D inspect --type image -f '{{.Os}} {{.Architecture}} {{json .Config.Cmd}} {{len .RootFS.Layers}}' busybox",
    ),
    all("$D save busybox | tar -tf - | grep -c manifest.json"),
    all(
        "$D save busybox > /tmp/save.$$ && $D rmi -f busybox >/dev/null && $D load -i /tmp/save.$$; rm /tmp/save.$$; $D run --rm busybox echo loaded",
    ),
    all("echo junk | $D load 2>/dev/null"),
    docker_only("$D history --format '{{.Comment}}' busybox | wc -l"),
    output("$D create --name user busybox true >/dev/null; $D rmi busybox; $D rm user"),
    // the rest
    code("$D version"),
    code("$D info"),
    // health
    all(
        "$D run -d --name fit --health-cmd 'echo checked; test -e /ok' --health-interval 1s --health-retries 1 busybox sleep 1000 >/dev/null; for word in unhealthy healthy; do until [ $($D inspect -f '{{.State.Health.Status}}' fit) = $word ]; do sleep 0.1; done; $D ps --filter name=fit --filter health=$word --format '{{.Names}}'; $D exec fit touch /ok; done; $D inspect -f '{{json (index .State.Health.Log 0).Output}} {{(index .State.Health.Log 0).ExitCode}}' fit",
    ),
    all(
        "$D pause fit; $D inspect -f '{{.State.Health.Status}}' fit; $D unpause fit; $D stop -t 0 fit; $D inspect -f '{{.State.Health.Status}} {{.State.Health.FailingStreak}}' fit; $D rm fit",
    ),
    all(
        "$D events --since 0 --until $(($(date +%s) + 1)) --filter container=fit --filter event=health_status --format '{{.Action}}' | sort -u",
    ),
    output("$D run --rm --health-cmd true --health-interval 1us busybox true"),
    output("$D ps --filter health=odd"),
    // events
    all(
        "$D run -d --name life busybox sleep 1000 >/dev/null; $D exec life true; $D top life >/dev/null; $D cp life:/etc/passwd - >/dev/null; $D pause life; $D unpause life; $D update --cpu-shares 512 life; $D restart -t 0 life; $D rm -f life; sleep 1; $D events --since 0 --until $(($(date +%s) + 1)) --filter container=life --format '{{.Action}}'",
    ),
    code("$D events --since 1 --until 2"),
    all(
        "$D events --since 0 --until $(($(date +%s) + 1)) --filter container=policy --format '{{.Action}}' | sed -n 1,4p",
    ),
    all("$D volume ls -q"),
    all("$D network ls --format '{{.Name}} {{.Driver}} {{.Scope}}' | sort"),
    // images of containers
    all(
        "$D run --name changed busybox sh -c 'mkdir /d; echo x > /d/new; echo y > /tmp/t; rm /bin/false; echo z >> /etc/passwd'; $D diff changed | sort",
    ),
    all("$D diff nosuch"),
    all(
        "$D commit -a me -m why -c 'CMD [\"echo\", \"from the image\"]' -c 'ENV A=b' -c 'LABEL l=1' changed committed:1 | wc -c",
    ),
    all("$D run --rm committed:1"),
    all("$D run --rm committed:1 sh -c 'cat /d/new; echo $A; ls /bin/false'"),
    all(
        "$D inspect -f '{{.Author}} {{.Comment}} {{json .Config.Cmd}} {{json .Config.Env}} {{len .RootFS.Layers}} {{json .Config.Labels}}' committed:1",
    ),
    all(
        "$D history --no-trunc --format '{{.CreatedBy}}|{{.Size}}|{{.Comment}}' committed:1 | sed -n 1p; $D history -q committed:1 | wc -l",
    ),
    all("$D history nosuch"),
    all("$D commit nosuch"),
    output("$D commit -c 'NOSUCH x' changed"),
    output("$D commit -c 'EXPOSE x' changed"),
    all("$D commit changed UPPER"),
    all(
        "$D run -d --name frozen busybox sleep 1000 >/dev/null; $D commit frozen frozen:1 | wc -c; $D inspect -f '{{.State.Status}}' frozen; $D commit --pause=false frozen frozen:2 | wc -c",
    ),
    all("$D inspect -f '{{len .RootFS.Layers}}' frozen:1; $D diff frozen; $D rm -f frozen"),
    all("$D export changed | tar -xOf - d/new"),
    // Without /dev: dockerd makes mount points in there.
    all("$D export changed | tar -tf - | grep -cE '^(proc|sys)/.'"),
    all("$D export nosuch"),
    all("$D export -o /tmp/export.$$ changed; tar -tf /tmp/export.$$ | grep -c '^d/new$'; rm /tmp/export.$$"),
    all(
        "$D export changed | $D import -c 'CMD [\"cat\", \"/d/new\"]' -m flat - flat:1 | wc -c; $D run --rm flat:1; $D history --format '{{.Comment}}' flat:1; $D rm changed",
    ),
    all("$D image prune -f"),
    all(
        "$D rmi frozen:1 >/dev/null; $D tag busybox frozen:2; $D images -f dangling=true -q | wc -l; $D image prune -f | grep -c 'deleted: sha256'; $D images -f dangling=true -q | wc -l",
    ),
    all("$D image prune -af --filter label=nosuch"),
    // What configurations and manifests take counts, too.
    all("$D image prune -af --filter label=l=1 | grep -vE 'sha256|Total'"),
    output("$D image prune -f --filter nosuch=1"),
    all("$D system df --format '{{.Type}} {{.TotalCount}} {{.Active}}' | grep -v Volumes"),
    all("$D images --format '{{.Repository}}:{{.Tag}}' | sort; $D rmi flat:1 frozen:2 | grep -v sha256"),
    // registries: what can be said without one
    all("$D pull UPPER"),
    output("$D pull nosuch.invalid/image:1 2>/dev/null"),
    all("$D pull 'busybox:no tag'"),
    all("$D push nosuch.invalid/nosuch:1"),
    all("$D push -q nosuch.invalid/nosuch"),
    all(
        "$D events --since 0 --until $(($(date +%s) + 1)) --filter type=image --filter image=committed:1 --format '{{.Action}}'",
    ),
    all(
        "$D events --since 0 --until $(($(date +%s) + 1)) --filter event=commit --format '{{.Action}} {{.Actor.Attributes.comment}} {{.Actor.Attributes.imageRef}}'",
    ),
    all("$D nosuchcommand 2>/dev/null"),
    all("$D ps -aq"),
];
