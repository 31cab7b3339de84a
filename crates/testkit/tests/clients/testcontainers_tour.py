"""PyPI's testcontainers against the daemon that DOCKER_HOST names: what a test suite does with it."""
import pathlib
import tempfile
import urllib.request

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

serve = "mkdir -p /www; cp /given/page /www/index.html; echo $GREETING ready; exec httpd -f -v -h /www -p 80"
with tempfile.TemporaryDirectory() as given:
    pathlib.Path(given, "page").write_text("a page\n")
    server = (
        DockerContainer("busybox:latest")
        .with_command(["sh", "-c", serve])
        .with_env("GREETING", "hello")
        .with_exposed_ports(80)
        .with_volume_mapping(given, "/given", "ro")
        .with_kwargs(labels={"suite": "tour"})
        .waiting_for(LogMessageWaitStrategy("hello ready"))
    )
    with server:
        # The client is told nothing of the host's addresses but the daemon's own.
        address = server.get_container_host_ip()
        port = server.get_exposed_port(80)
        HttpWaitStrategy(80).with_startup_timeout(120).wait_until_ready(server)
        with urllib.request.urlopen(f"http://{address}:{port}/") as answer:
            assert answer.read() == b"a page\n"
        out, err = server.get_logs()
        assert out.startswith(b"hello ready"), (out, err)
        code, output = server.exec(["sh", "-c", "cat /given/page; exit 4"])
        assert (code, output) == (4, b"a page\n"), (code, output)
        code, output = server.exec("touch /given/new")
        assert code == 1 and b"Read-only" in output, (code, output)
        wrapped = server.get_wrapped_container()
        assert wrapped.stats(stream=False)["pids_stats"]["current"] >= 1
        assert server.get_docker_client().client.containers.list(filters={"label": "suite=tour"}) == [wrapped]

client = docker.from_env()
assert client.containers.list(all=True) == [], "what it made is removed"

# A suite whose container fails tells why, and removes it too.
failing = DockerContainer("busybox:latest").with_command("sh -c 'echo broken >&2; exit 9'")
failing.waiting_for(LogMessageWaitStrategy("never said").with_startup_timeout(120))
try:
    failing.start()
    raise AssertionError("it never says it")
except RuntimeError as error:
    assert "exited" in str(error), error
except TimeoutError:
    raise AssertionError("its end was not seen")
finally:
    failing.stop()
assert client.containers.list(all=True) == []
print("testcontainers: done")
