"""Values that fit the daemon as it is, for requests that are to be carried out and not refused: fuzz.py mixes them with
those that are made from the definition. Nothing here reaches the rest of the host."""
import io
import json
import random
import tarfile

# Hypothesis sets the module's own generator back before every example.
dice = random.Random()

IMAGE = "busybox:latest"
VOLUMES = ["data", "made", "third"]
SHELL = [
    ["sleep", "5"], ["sh", "-c", "echo out; echo err >&2; exit 3"],
    ["sh", "-c", "while :; do echo line; sleep 0.1; done"], ["cat"], ["nosuch"],
    ["sh", "-c", "touch /data/here /new; mkdir /dir; ln -s / /link; sleep 3"], ["true"],
]

# Members of a container's configuration, and of its HostConfig.
CONFIG = {
    "Cmd": SHELL, "Entrypoint": [[], ["sh", "-c"], ["env"]], "Hostname": ["here", ""], "Domainname": ["example.org"],
    "User": ["0", "1000", "nobody", "1:1", "nobody:nogroup", "nosuch"], "Tty": [True, False],
    "OpenStdin": [True, False], "StdinOnce": [True, False], "AttachStdin": [True], "AttachStdout": [True],
    "Env": [["A=1", "B"], ["PATH="], []], "WorkingDir": ["/", "/made/deep", "/etc/passwd"], "Labels": [{"a": "b"}, {}],
    "Volumes": [{"/anonymous": {}}, {"/data/x": {}}],
    "ExposedPorts": [{"80/tcp": {}}, {"53/udp": {}, "1000-1010/tcp": {}}], "StopSignal": ["SIGKILL", "9", "SIGRTMIN+3"],
    "StopTimeout": [0, 1], "NetworkDisabled": [True, False], "Shell": [["sh", "-c"]],
    "Healthcheck": [
        {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
        {"Test": ["CMD-SHELL", "exit 1"], "Retries": 1, "Interval": 100_000_000, "Timeout": 1_000_000_000},
        {"Test": ["NONE"]},
    ],
}
HOST = {
    "Memory": [33554432, 6291456], "MemorySwap": [-1, 67108864], "MemoryReservation": [16777216],
    "NanoCpus": [500_000_000], "CpuShares": [2, 512], "CpuPeriod": [100000], "CpuQuota": [50000, -1],
    "CpusetCpus": ["0", "0-1"], "PidsLimit": [20, -1, 0], "BlkioWeight": [0, 500], "OomScoreAdj": [500],
    "OomKillDisable": [False, True], "ShmSize": [1 << 20, 0],
    "Ulimits": [[{"Name": "nofile", "Soft": 100, "Hard": 200}], []], "Sysctls": [{"net.ipv4.ip_forward": "1"}],
    "Binds": [["data:/data"], ["made:/made:ro"], ["data:/data:nocopy", "third:/third"]],
    "Tmpfs": [{"/tmp": "size=1m"}, {"/run": ""}],
    "Mounts": [
        [{"Type": "volume", "Source": "third", "Target": "/m"}], [{"Type": "volume", "Target": "/m", "ReadOnly": True}],
        [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 0o700}}],
    ],
    "VolumesFrom": [["running0"], ["new1:ro"]],
    "NetworkMode": ["bridge", "none", "host", "default", "container:running0"],
    "PortBindings": [{"80/tcp": [{"HostPort": ""}]}, {"81/udp": [{"HostIp": "127.0.0.1", "HostPort": "20000-20100"}]}],
    "PublishAllPorts": [True, False], "Dns": [["192.0.2.1"], []], "DnsSearch": [["example.org"]],
    "DnsOptions": [["ndots:2"]], "ExtraHosts": [["a:192.0.2.1", "b:host-gateway"]], "Links": [["running0:other"]],
    "GroupAdd": [["10"], ["tty"]], "CapAdd": [["NET_ADMIN"], ["ALL"]], "CapDrop": [["ALL"], ["MKNOD"]],
    "ReadonlyRootfs": [True, False], "Init": [True, False],
    "SecurityOpt": [["no-new-privileges"], ["seccomp=unconfined"]],
    "IpcMode": ["private", "shareable", "none", "container:running1"], "PidMode": ["", "container:running0"],
    "UTSMode": [""], "Isolation": ["", "default"], "AutoRemove": [True, False],
    "RestartPolicy": [
        {"Name": "on-failure", "MaximumRetryCount": 2}, {"Name": "always"}, {"Name": "no"}, {"Name": "unless-stopped"},
    ],
    "LogConfig": [
        {"Type": "json-file", "Config": {"max-size": "10k", "max-file": "3"}}, {"Type": "local", "Config": {}},
        {"Type": "none", "Config": {}},
    ],
    "MaskedPaths": [[], ["/proc/kcore"]], "ReadonlyPaths": [["/proc/sys"]], "StorageOpt": [{}],
    "ConsoleSize": [[24, 80], [0, 0]], "Annotations": [{"a": "b"}], "ContainerIDFile": [""],
}


def some(table, most):
    """A few members, with a value each."""
    return {name: dice.choice(table[name]) for name in dice.sample(sorted(table), dice.randrange(most + 1))}


def container():
    return {"Image": IMAGE, "Cmd": ["sleep", "5"], **some(CONFIG, 4), "HostConfig": some(HOST, 4)}


def execution():
    optional = {
        "Tty": [True, False], "Env": [["X=y"], []], "User": ["0", "1000:1", "nosuch"], "WorkingDir": ["/", "/nosuch"],
        "DetachKeys": ["ctrl-a", ""], "AttachStdin": [True, False], "ConsoleSize": [[10, 20]], "Privileged": [False],
    }
    return {"Cmd": dice.choice(SHELL), "AttachStdout": True, "AttachStderr": True, **some(optional, 3)}


def update():
    names = ["Memory", "MemorySwap", "NanoCpus", "CpuShares", "CpuQuota", "CpusetCpus", "PidsLimit", "BlkioWeight"]
    names.append("RestartPolicy")
    return some({name: HOST[name] for name in names}, 3)


def volume():
    return some({"Name": VOLUMES, "Driver": ["local", ""], "Labels": [{"a": "b"}, None],
                 "DriverOpts": [{}, {"type": "tmpfs", "o": "size=1m"}]}, 4)


BODIES = {
    "/containers/create": container, "/containers/{id}/update": update, "/containers/{id}/exec": execution,
    "/exec/{id}/start": lambda: some({"Detach": [True, False], "Tty": [True, False], "ConsoleSize": [[10, 20]]}, 2),
    "/volumes/create": volume, "/commit": lambda: some(CONFIG, 3),
    "/networks/create": lambda: {"Name": "made", **some({"Internal": [True], "Labels": [{"a": "b"}]}, 2)},
    "/networks/{id}/connect": lambda: {"Container": "running0"},
    "/networks/{id}/disconnect": lambda: {"Container": "running0", "Force": dice.random() < 0.5},
}

BOOLEAN = ["0", "1", "true", "false"]
TIMES = ["0", "1", "2020-01-01T00:00:00Z", "1m", "4102444800"]
FILTERS = {
    "status": "running", "label": "a=b", "name": "running0", "ancestor": "busybox", "volume": "data",
    "network": "bridge", "exited": "3", "health": "healthy", "since": "new0", "before": "new1", "dangling": "true",
    "driver": "bridge", "type": "container", "event": "start", "reference": "busy*", "until": "10h", "scope": "local",
    "id": "a",
}


def filters():
    return json.dumps({name: [FILTERS[name]] for name in dice.sample(sorted(FILTERS), dice.randrange(2))})


# Of every request that has the parameter; of one alone, under its path.
QUERY = {
    "filters": filters, "since": TIMES, "until": ["1", "2020-01-01T00:00:00Z"], "tail": ["all", "0", "3"],
    "stream": BOOLEAN, "one-shot": BOOLEAN, "h": ["24", "1"], "w": ["80", "200"], "t": ["0", "1", "-1"],
    "signal": ["KILL", "SIGTERM", "10", "WINCH"], "detachKeys": ["ctrl-p,ctrl-q", "a"],
    "condition": ["not-running", "next-exit", "removed"], "ps_args": ["-ef", "aux", "-o pid"],
    "path": ["/", "/data", "/etc/passwd", "/link/etc", "/proc", "/nosuch", "/data/../..", "/dir", "/tmp", "/new"],
    "limit": ["1", "0", "-1"], "repo": ["made", "made/deep", "localhost:5000/made"], "tag": ["a", "b", "latest"],
    "comment": ["words"], "author": ["Somebody"],
    "changes": ["CMD [\"true\"]", "ENV a=b", "EXPOSE 80\nVOLUME /v", "USER 1"], "names": [IMAGE, "made:a"],
    "platform": ["", "linux/amd64", "linux/arm64"], "message": ["words"], "verbose": BOOLEAN, "scope": ["local", ""],
}
for name in ("all", "size", "follow", "stdout", "stderr", "timestamps", "logs", "stdin",
             "v", "force", "noOverwriteDirNonDir", "copyUIDGID", "digests", "noprune", "pause", "quiet"):
    QUERY[name] = BOOLEAN
NAMES = {
    "/containers/create": lambda: dice.choice(["", "", "running0", f"made{dice.randrange(100)}"]),
    "/containers/{id}/rename": lambda: dice.choice(["new0", f"made{dice.randrange(100)}"]),
}


def query(template, names):
    """Values for some of the parameters that the request has."""
    chosen = {}
    for name in names:
        values = NAMES.get(template) if name == "name" else QUERY.get(name)
        always = name in ("path", "name", "repo", "h", "w")
        if values and (always or dice.random() < 0.4):
            chosen[name] = values() if callable(values) else dice.choice(values)
    return {name: value for name, value in chosen.items() if value != ""}


TYPES = {"dir/": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}


def archive():
    """A tar of entries that a tree can have, and of some that try to leave it."""
    file = io.BytesIO()
    names = ["a", "dir/", "dir/b", "../out", "/abs", "link", "link/c", "data/x", "hard", "fifo", "dir/.wh.b"]
    with tarfile.open(fileobj=file, mode="w", format=dice.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])) as tar:
        for name in dice.choices(names, k=dice.randrange(1, 8)):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.mtime = dice.choice([0o644, 0o4755, 0]), dice.choice([0, 1000]), 1.5
            entry.type = TYPES.get(name, tarfile.REGTYPE)
            if name in ("link", "hard"):
                entry.linkname = dice.choice(["a", "/", "../../etc", "nosuch"])
            entry.size = dice.choice([0, 5, 5000]) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    return file.getvalue()
