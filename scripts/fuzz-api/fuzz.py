"""Requests that are made from the API's published definition, by schemathesis, against the daemon on a unix socket.

    fuzz.py SOCKET DEFINITION SECONDS SEED

Half of them fit the definition, half do not; some are cut off, or are not even JSON. Names are often those of objects
that exist, so that requests get past the look-up. Every answer must have a status below 500, or 501 for what is not
built, and an error must have a message; every request must be answered within a minute, but for streams, whose clients
vanish. Exit status 1, with the requests, if that is not so.
"""
import collections
import json
import multiprocessing
import random
import socket
import sys
import time
import traceback
import warnings

import hypothesis
import requests
import schemathesis
import yaml
from schemathesis import GenerationMode

# What asks a registry: one that can't be reached is a status of 500, with Docker too.
OUTSIDE = {"/images/{name}/push", "/images/search", "/distribution/{name}/json", "/auth"}
# What is 501 as a whole, or made for another part: tried now and then.
SELDOM = ("/swarm", "/services", "/nodes", "/tasks", "/secrets", "/configs", "/plugins", "/build", "/session", "/images")
# What goes on until somebody ends it; their clients vanish.
STREAMS = ("/events", "/stats", "/logs", "/attach", "/attach/ws", "/wait", "/start", "/stop", "/restart", "/session")
IMAGE = "busybox:latest"
VERSIONS = ["", "/v1.24", "/v1.30", "/v1.41", "/v1.44", "/v1.53"]
# Refused, or carried out, by random value. The rest of the host is not for play.
HARMLESS = {"Privileged": False, "Devices": [], "CgroupParent": "", "PidMode": "", "Binds": ["data:/data"], "CgroupnsMode": ""}


class Stuck(Exception):
    """No answer within the time in which one must come."""


def exchange(path_of_socket, method, path, headers, body, patience, is_cut):
    """The answer's head and body; None where the client is to vanish."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(patience)
    connection.connect(path_of_socket)
    with connection:
        lines = [f"{method} {path} HTTP/1.1", "Host: d", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()
                  if name.lower() not in ("content-length", "host", "connection", "transfer-encoding")]
        request = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body
        if is_cut:
            connection.sendall(request[: random.randrange(len(request))])
            return None
        try:
            connection.sendall(request)
            answer = b""
            while part := connection.recv(1 << 20):
                answer += part
                if len(answer) > 64 << 20:
                    return None
        except socket.timeout:
            raise Stuck from None
        except OSError:
            # It may close a connection that speaks no HTTP.
            pass
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        whole, rest = rest, b""
        while whole:
            size, _, whole = whole.partition(b"\r\n")
            length = int(size, 16)
            rest, whole = rest + whole[:length], whole[length + 2:]
    return head, rest


class Client:
    """One of those that ask at once."""

    def __init__(self, path_of_socket, number):
        self.socket = path_of_socket
        self.number = number
        self.made = collections.deque(maxlen=8)
        self.execs = collections.deque(["nosuch"], maxlen=8)
        self.count = collections.Counter()
        self.failures = {}

    def ask(self, method, path, body=None):
        """A request that is known to be good: its status and answer."""
        data = b"" if body is None else json.dumps(body).encode()
        head, rest = exchange(self.socket, method, path, {"Content-Type": "application/json"}, data, 120, False)
        return int(head.split()[1]), json.loads(rest) if rest.strip() else None

    def provide(self):
        """Some containers in each state, and not too many of those that were made by chance."""
        for kept in ("running", "paused", "ended", "new", "terminal"):
            name = f"{kept}{self.number}"
            command = ["sh", "-c", "echo said; exit 3"] if kept == "ended" else ["sleep", "1000"]
            body = {"Image": IMAGE, "Cmd": command, "Tty": kept == "terminal", "OpenStdin": True,
                    "StopSignal": "SIGKILL", "HostConfig": {"Binds": ["data:/data"]}}
            if self.ask("POST", f"/containers/create?name={name}", body)[0] == 201 and kept != "new":
                self.ask("POST", f"/containers/{name}/start")
                if kept == "paused":
                    self.ask("POST", f"/containers/{name}/pause")
        _, listed = self.ask("GET", "/containers/json?all=1")
        mine = [one["Id"] for one in listed if one["Id"] in self.made]
        for old in listed[40:]:
            self.ask("DELETE", f"/containers/{old['Id']}?force=1&v=1")
        self.made = collections.deque(mine, maxlen=8)

    def container(self):
        kept = [f"{kept}{self.number}" for kept in ("running", "paused", "ended", "new", "terminal")]
        return random.choice(kept + [f"running{1 - self.number}"] + list(self.made))

    def aim(self, template, case):
        """Puts names of what exists into a request, and takes out what would reach the host."""
        if case.path_parameters and random.random() < 0.8:
            if template.startswith("/containers/"):
                case.path_parameters["id"] = self.container()
            elif template.startswith("/exec/"):
                case.path_parameters["id"] = random.choice(self.execs)
            elif template.startswith("/volumes/"):
                case.path_parameters["name"] = random.choice(["data", "made"])
            elif template.startswith("/networks/"):
                case.path_parameters["id"] = random.choice(["bridge", "host", "none"])
            elif template.startswith("/images/") and case.operation.method.upper() != "DELETE":
                case.path_parameters["name"] = IMAGE
        if template == "/commit" and isinstance(case.query, dict):
            case.query["container"] = self.container()
        if template == "/images/create" and isinstance(case.query, dict):
            case.query = {**case.query, "fromImage": "", "fromSrc": "-"}
        if isinstance(case.body, dict):
            self.tame(template, case.body)

    def tame(self, template, body):
        if template == "/containers/create":
            if random.random() < 0.8:
                body["Image"] = IMAGE
                body["Cmd"] = ["sleep", "5"]
                body.pop("Entrypoint", None)
            settings = body.get("HostConfig")
            if isinstance(settings, dict):
                settings.update({name: value for name, value in HARMLESS.items() if name in settings})
                mounts = settings.get("Mounts")
                for mount in mounts if isinstance(mounts, list) else []:
                    if isinstance(mount, dict) and mount.get("Type") == "bind":
                        mount["Source"] = "/nosuch"
                keep_some(settings)
            keep_some(body)
        if template == "/volumes/create" and isinstance(body.get("DriverOpts"), dict):
            body["DriverOpts"].pop("device", None)

    def send(self, template, case):
        self.aim(template, case)
        prepared = requests.Request(**case.as_transport_kwargs(base_url="http://d")).prepare()
        body, headers = prepared.body or b"", dict(prepared.headers)
        body = body.encode() if isinstance(body, str) else bytes(body) if isinstance(body, (bytes, bytearray)) else b""
        chance = random.random()
        if chance < 0.05 and body:
            body = body[: random.randrange(len(body))] + bytes([random.randrange(256)])
        elif chance < 0.08:
            headers["Content-Type"] = random.choice(["text/plain", "", "application/x-tar", "\xff", "application/json; charset=utf-16"])
        is_stream = template.endswith(STREAMS)
        path = random.choice(VERSIONS) + prepared.path_url.replace("%00", "%01")
        try:
            answer = exchange(self.socket, prepared.method, path, headers, body, 0.5 if is_stream else 60, chance > 0.97)
        except Stuck:
            self.count["vanished" if is_stream else "stuck"] += 1
            if not is_stream:
                self.fail(template, prepared.method, path, body, "no answer within a minute")
            return
        except ConnectionError as error:
            self.fail(template, prepared.method, path, body, f"the daemon is gone: {error}")
            return
        if answer is not None:
            self.judge(template, prepared.method, path, body, *answer)

    def judge(self, template, method, path, body, head, rest):
        if not head.startswith(b"HTTP/1.1 "):
            self.count["closed"] += 1
            return
        status = int(head.split()[1])
        self.count[f"{status} of create" if template == "/containers/create" else status] += 1
        try:
            answer = json.loads(rest) if status >= 400 or status == 201 else None
        except ValueError:
            answer = None
        if status >= 500 and status != 501:
            self.fail(template, method, path, body, f"{status} {rest[:300]!r}")
        elif status >= 400 and method != "HEAD" and not (isinstance(answer, dict) and answer.get("message")):
            # hyper's own refusals of what is no HTTP have no body.
            if rest or status not in (400, 414, 431):
                self.fail(template, method, path, body, f"{status} without a message: {rest[:300]!r}")
        elif status == 201 and isinstance(answer, dict) and answer.get("Id"):
            (self.execs if template.endswith("/exec") else self.made).append(answer["Id"])
            if template == "/containers/create":
                self.start(answer["Id"], path, body)

    def start(self, container, path, body):
        """What was taken must be startable, or be refused as the client's fault."""
        try:
            head, rest = exchange(self.socket, "POST", f"/containers/{container}/start", {}, b"", 60, False)
        except Stuck:
            self.fail("start", "POST", path, body, "no answer within a minute")
            return
        status = int(head.split()[1])
        self.count[f"start {status}"] += 1
        if status >= 500 and status != 501:
            self.fail("start", "POST", path, body, f"start: {status} {rest[:300]!r}")

    def fail(self, template, method, path, body, what):
        known = "".join("#" if c in "0123456789abcdef" else c for c in what)[:120]
        self.failures.setdefault((template, method, known), f"{method} {path}\n  {body[:1500]!r}\n  {what}")


def keep_some(body):
    """Of many fields one is always wrong: most requests have few."""
    names = [name for name in body if name not in ("Image", "Cmd", "HostConfig")]
    if random.random() < 0.8:
        for name in random.sample(names, max(0, len(names) - random.randrange(1, 4))):
            del body[name]


def work(path_of_socket, definition, seconds, seed, number, results):
    """A client's process; what goes wrong in the program itself is a failure, too."""
    client = Client(path_of_socket, number)
    try:
        until_the_end(client, definition, seconds, seed)
    except BaseException:
        client.failures["fuzz.py"] = traceback.format_exc()
    results.put((dict(client.count), list(client.failures.values())))


def until_the_end(client, definition, seconds, seed):
    number = client.number
    warnings.simplefilter("ignore")
    random.seed(seed + number)
    schema = schemathesis.openapi.from_dict({**definition, "basePath": "/"})
    operations = [operation.ok() for operation in schema.get_all_operations() if operation.ok().path not in OUTSIDE]
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end:
        random.shuffle(operations)
        for operation in operations:
            if time.monotonic() >= end:
                break
            if operation.path.startswith(SELDOM) and random.random() < 0.95:
                continue
            turn += 1
            if turn % 5 == 1:
                client.provide()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                ask(client, operation, mode, seed + number * 1_000_000 + turn, end)


def ask(client, operation, mode, seed, end):
    """Some requests for one operation."""
    # Of the two kinds of body that the definition knows there, the other is refused at once.
    media_type = "application/json" if operation.path == "/containers/create" else None

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=15, deadline=None, database=None, phases=[hypothesis.Phase.generate],
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=operation.as_strategy(mode, media_type=media_type))
    def requests_of(case):
        if time.monotonic() < end:
            client.send(operation.path, case)

    try:
        requests_of()
    except (hypothesis.errors.Unsatisfiable, schemathesis.errors.SchemathesisError):
        # Nothing can be wrong about an operation that takes nothing.
        pass


def main():
    path_of_socket, file, seconds, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    with open(file) as text:
        definition = yaml.safe_load(text)
    results = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=work, args=(path_of_socket, definition, seconds, seed, number, results))
               for number in range(2)]
    for worker in workers:
        worker.start()
    count, failures = collections.Counter(), []
    for _ in workers:
        counted, failed = results.get(timeout=seconds + 600)
        count.update(counted)
        failures += failed
    for worker in workers:
        worker.join()
    print("requests by status:", ", ".join(f"{status}: {n}" for status, n in sorted(count.items(), key=str)))
    for failure in failures:
        print(f"--- {failure}")
    print(f"{sum(count.values())} requests, {len(failures)} kinds of failure")
    sys.exit(1 if failures else 0)


main()
