"""PyPI's docker client against the daemon that DOCKER_HOST names: the calls of a usual user."""
import io
import tarfile
import threading
import time

import docker

client = docker.from_env(timeout=120)
assert client.ping()
assert client.version()["ApiVersion"]
assert client.info()["Containers"] == 0
assert [tag for image in client.images.list() for tag in image.tags] == ["busybox:latest"]

seen = []
events = client.events(decode=True)
threading.Thread(target=lambda: seen.extend(e["Action"] for e in events if e["Type"] == "container"), daemon=True).start()

assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
try:
    client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    raise AssertionError("exit code 3 must raise")
except docker.errors.ContainerError as error:
    assert error.exit_status == 3 and b"bad" in error.stderr

container = client.containers.run(
    "busybox", ["sh", "-c", "trap 'exit 7' TERM; i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.05; done"],
    detach=True, name="sdk", environment={"A": "B"}, labels={"l": "1"}, mem_limit="64m", pids_limit=20)
assert [c.name for c in client.containers.list(filters={"label": "l=1"})] == ["sdk"]
container.reload()
assert container.status == "running" and container.attrs["HostConfig"]["Memory"] == 64 << 20

lines = container.logs(stream=True, follow=True)
first = b""
while first.count(b"\n") < 3:
    first += next(lines)
assert first.startswith(b"tick 0\ntick 1\ntick 2\n"), first

code, output = container.exec_run(["sh", "-c", "echo $A; exit 5"])
assert (code, output) == (5, b"B\n"), (code, output)
code, (out, err) = container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
assert (code, out, err) == (0, b"out\n", b"err\n"), (code, out, err)

packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w") as tar:
    member = tarfile.TarInfo("given")
    member.size = 5
    tar.addfile(member, io.BytesIO(b"12345"))
assert container.put_archive("/root", packed.getvalue())
stream, stat = container.get_archive("/root/given")
assert stat["name"] == "given" and stat["size"] == 5
with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
    assert tar.extractfile("given").read() == b"12345"

assert container.stats(stream=False)["memory_stats"]["usage"] > 0
assert any("sh" in " ".join(process) for process in container.top()["Processes"])
container.pause()
container.reload()
assert container.status == "paused"
container.unpause()
container.rename("sdk2")
container.stop(timeout=60)
assert container.wait()["StatusCode"] == 7
container.start()
container.kill()
assert container.wait()["StatusCode"] == 137
container.remove(v=True)
try:
    client.containers.get("sdk2")
    raise AssertionError("it was removed")
except docker.errors.NotFound:
    pass

volume = client.volumes.create("sdk-data", labels={"of": "sdk"})
assert client.volumes.list(filters={"label": "of=sdk"}) == [volume] and volume.attrs["Driver"] == "local"
user = client.containers.create("busybox", ["sh", "-c", "cat /data/kept; exec sleep 1000"], name="user",
                                volumes={"sdk-data": {"bind": "/data", "mode": "rw"}}, stdin_open=True)
packed.seek(0)
assert user.put_archive("/data", packed)
user.start()
user.reload()
assert [mount["Name"] for mount in user.attrs["Mounts"]] == ["sdk-data"]
assert user.exec_run("cat /data/given").output == b"12345"
try:
    volume.remove()
    raise AssertionError("it is used")
except docker.errors.APIError as error:
    assert error.status_code == 409, error
numbers = user.stats(decode=True)
assert [next(numbers)["name"] for _ in range(2)] == ["/user", "/user"]
numbers.close()
user.exec_run("touch /new")
assert {"Path": "/new", "Kind": 1} in user.diff()
user.update(mem_limit="32m", memswap_limit="64m")
user.reload()
assert user.attrs["HostConfig"]["Memory"] == 32 << 20
assert client.df()["Volumes"][0]["UsageData"]["RefCount"] == 1
user.remove(force=True)
assert client.volumes.prune(filters={"label": "of=sdk", "all": "true"})["VolumesDeleted"] == ["sdk-data"]
assert client.containers.prune()["ContainersDeleted"] in (None, [])

# They come on a connection of their own.
wanted = {"create", "start", "die", "kill", "destroy", "rename", "pause", "unpause"}
deadline = time.monotonic() + 120
while not wanted <= set(seen) and time.monotonic() < deadline:
    time.sleep(0.01)
assert wanted <= set(seen), seen
print("docker SDK: done")
