"""Requests that are made from the API's published definition, by schemathesis, against the daemon on a unix socket.

    fuzz.py SOCKET DEFINITION SECONDS SEED

Half of them fit the definition, half do not; some are cut off, or are not even JSON. Each is sent several times, with
more or fewer of its values exchanged for those of fitting.py, and with names of objects that exist, so that many are
carried out. Every answer must have a status below 500, or 501 for what is not built, and an error must have a message;
every request must be answered within a minute, but for streams, whose clients vanish. Exit status 1, with the requests,
if that is not so.
"""
import collections
import json
import multiprocessing
import re
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

import fitting
from fitting import IMAGE, dice

# What asks a registry: one that can't be reached is a status of 500, with Docker too.
OUTSIDE = {"/images/{name}/push", "/images/search", "/distribution/{name}/json", "/auth"}
# What is 501 as a whole, or made for another part: tried now and then.
SELDOM = ("/swarm", "/services", "/nodes", "/tasks", "/secrets", "/configs", "/plugins", "/build", "/session")
# What goes on until somebody ends it; their clients vanish.
STREAMS = ("/events", "/stats", "/logs", "/attach", "/attach/ws", "/wait", "/start", "/stop", "/restart", "/session")
# To draw one from the definition is dear, to change it is not.
VARIANTS = 10
ARCHIVES = ("/containers/{id}/archive", "/images/create", "/images/load")
WEBSOCKET = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
             "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
KINDS = ["text/plain", "", "application/x-tar", "\xff", "application/json; charset=utf-16"]
VERSIONS = ["", "/v1.24", "/v1.30", "/v1.41", "/v1.44", "/v1.53"]
# Refused, or carried out, by random value. The rest of the host is not for play.
HARMLESS = {"Privileged": False, "Devices": [], "CgroupParent": "", "PidMode": "", "Binds": ["data:/data"],
            "CgroupnsMode": ""}


class Stuck(Exception):
    """No answer within the time in which one must come."""


def exchange(path_of_socket, method, path, headers, body, patience, is_cut):
    """The answer's head and body; None where the client is to vanish."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(patience)
    connection.connect(path_of_socket)
    with connection:
        lines = [f"{method} {path} HTTP/1.1", "Host: d", f"Content-Length: {len(body)}",
                 f"Connection: {'Upgrade' if headers.get('Connection') == 'Upgrade' else 'close'}"]
        lines += [f"{name}: {value}" for name, value in headers.items()
                  if name.lower() not in ("content-length", "host", "connection", "transfer-encoding")]
        request = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body
        if is_cut:
            connection.sendall(request[: dice.randrange(len(request))])
            return None
        try:
            connection.sendall(request)
            answer = b""
            end = time.monotonic() + patience
            while part := connection.recv(1 << 20):
                answer += part
                # Some streams are never silent for as long.
                if time.monotonic() > end:
                    raise Stuck
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
        # By operation and status; and by operation and why.
        self.count = collections.Counter()
        self.refused = collections.Counter()
        self.failures = {}
        self.image = self.exchange("GET", f"/images/{IMAGE}/get")[1]

    def exchange(self, method, path, body=b"", kind="application/json"):
        """A request that is known to be good: its status, and the answer's bytes."""
        head, rest = exchange(self.socket, method, path, {"Content-Type": kind}, body, 120, False)
        return int(head.split()[1]), rest

    def ask(self, method, path, body=None):
        status, rest = self.exchange(method, path, b"" if body is None else json.dumps(body).encode())
        return status, json.loads(rest) if rest.strip() else None

    def provide(self):
        """Some containers in each state, and not too many objects of those that were made by chance."""
        if self.ask("GET", f"/images/{IMAGE}/json")[0] != 200:
            self.exchange("POST", "/images/load", self.image, "application/x-tar")
        _, images = self.ask("GET", "/images/json")
        for old in [tag for image in images for tag in image["RepoTags"] or () if tag != IMAGE][10:]:
            self.ask("DELETE", f"/images/{old}?force=1")
        for kept in ("running", "paused", "ended", "new", "terminal"):
            name = f"{kept}{self.number}"
            command = ["sh", "-c", "echo said; exit 3"] if kept == "ended" else ["sleep", "1000"]
            body = {"Image": IMAGE, "Cmd": command, "Tty": kept == "terminal", "OpenStdin": True,
                    "StopSignal": "SIGKILL", "HostConfig": {"Binds": ["data:/data"]}}
            is_new = self.ask("POST", f"/containers/create?name={name}", body)[0] == 201
            if kept in ("running", "terminal") and not is_new:
                self.ask("POST", f"/containers/{name}/unpause")
            if kept != "new" and (is_new or kept != "ended"):
                self.ask("POST", f"/containers/{name}/start")
            if kept == "paused":
                self.ask("POST", f"/containers/{name}/pause")
        status, made = self.ask("POST", f"/containers/running{self.number}/exec", fitting.execution())
        if status == 201:
            self.execs.append(made["Id"])
        _, listed = self.ask("GET", "/containers/json?all=1")
        mine = [one["Id"] for one in listed if one["Id"] in self.made]
        is_kept = re.compile("/(running|paused|ended|new|terminal)[01]$")
        by_chance = [one for one in listed if not any(map(is_kept.match, one["Names"] or ()))]
        for old in by_chance[20:]:
            self.ask("DELETE", f"/containers/{old['Id']}?force=1&v=1")
        self.made = collections.deque(mine, maxlen=8)

    def container(self):
        kept = [f"{kept}{self.number}" for kept in ("running", "paused", "ended", "new", "terminal")]
        return dice.choice(kept + [f"running{number}" for number in (0, 0, 1)] + list(self.made))

    def aim(self, template, case, fits):
        """Puts names of what exists into a request, and takes out what would reach the host."""
        method = case.operation.method.upper()
        if case.path_parameters and (fits or dice.random() < 0.6):
            if template.startswith("/containers/"):
                case.path_parameters["id"] = self.container()
            elif template.startswith("/exec/"):
                case.path_parameters["id"] = dice.choice(self.execs)
            elif template.startswith("/volumes/"):
                case.path_parameters["name"] = dice.choice(fitting.VOLUMES)
            elif template.startswith("/networks/"):
                case.path_parameters["id"] = dice.choice(["bridge", "host", "none"])
            elif template.startswith("/images/"):
                names = ["made:a", "made:b", "made:latest", "made/deep:a"]
                case.path_parameters["name"] = dice.choice(names if method == "DELETE" else names + [IMAGE] * 4)
        if fits:
            parameters = case.operation.definition.raw.get("parameters", [])
            names = [one["name"] for one in parameters if one.get("in") == "query"]
            case.query = {**(case.query if dice.random() < 0.3 and isinstance(case.query, dict) else {}),
                          **fitting.query(template, names)}
            if method != "GET" and template in fitting.BODIES:
                drawn = case.body if isinstance(case.body, dict) else {}
                kept = dice.sample(list(drawn), min(len(drawn), dice.choice([0, 0, 1, 2])))
                case.media_type = "application/json"
                case.body = {**fitting.BODIES[template](), **{name: drawn[name] for name in kept}}
        if template == "/commit" and isinstance(case.query, dict):
            case.query["container"] = self.container()
        if template == "/images/create" and isinstance(case.query, dict):
            case.query = {**case.query, "fromImage": "", "fromSrc": "-"}
        if isinstance(case.body, dict):
            self.tame(template, case.body)

    def tame(self, template, body):
        if template == "/containers/create":
            if dice.random() < 0.8:
                body["Image"] = IMAGE
            settings = body.get("HostConfig")
            if isinstance(settings, dict):
                settings.update({name: value for name, value in HARMLESS.items()
                                 if name in settings and settings[name] not in fitting.HOST.get(name, [])})
                mounts = settings.get("Mounts")
                for mount in mounts if isinstance(mounts, list) else []:
                    if isinstance(mount, dict) and mount.get("Type") == "bind":
                        mount["Source"] = "/nosuch"
                keep_some(settings)
            keep_some(body)
        if template == "/volumes/create" and isinstance(body.get("DriverOpts"), dict):
            body["DriverOpts"].pop("device", None)

    def send(self, template, case):
        drawn = case.path_parameters, case.query, case.body
        media_type = case.media_type
        for number in range(VARIANTS):
            case.path_parameters, case.query, case.body = map(copied, drawn)
            case.media_type = media_type
            self.send_one(template, case, number != 0 and dice.random() < 0.9)

    def send_one(self, template, case, fits):
        self.aim(template, case, fits)
        prepared = requests.Request(**case.as_transport_kwargs(base_url="http://d")).prepare()
        body, headers = prepared.body or b"", dict(prepared.headers)
        body = body.encode() if isinstance(body, str) else bytes(body) if isinstance(body, (bytes, bytearray)) else b""
        if fits and template.endswith("/ws"):
            headers.update(WEBSOCKET)
        if fits and template in ARCHIVES and prepared.method in ("PUT", "POST"):
            body = self.image if template == "/images/load" else fitting.archive()
            headers["Content-Type"] = "application/x-tar"
        chance = dice.random()
        if chance < 0.05 and body:
            body = body[: dice.randrange(len(body))] + bytes([dice.randrange(256)])
        elif chance < 0.08:
            headers["Content-Type"] = dice.choice(KINDS)
        is_stream = template.endswith(STREAMS)
        path = dice.choice(VERSIONS) + prepared.path_url.replace("%00", "%01")
        try:
            patience = 0.5 if is_stream else 60
            answer = exchange(self.socket, prepared.method, path, headers, body, patience, chance > 0.97)
        except Stuck:
            self.count[f"{prepared.method} {template}", "vanished" if is_stream else "stuck"] += 1
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
            self.count[f"{method} {template}", "closed"] += 1
            return
        status = int(head.split()[1])
        self.count[f"{method} {template}", status] += 1
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
        elif status >= 400 and isinstance(answer, dict):
            why = re.sub(r"[\"'].*[\"']|[0-9a-f]{12,}|[^ -~].*", "…", str(answer.get("message")))[:110]
            self.refused[f"{method} {template}", why] += 1
        elif status == 201 and template.endswith("/exec"):
            self.execs.append(answer["Id"])
        elif status == 201 and template == "/containers/create":
            self.made.append(answer["Id"])
            self.start(answer["Id"], path, body)

    def start(self, container, path, body):
        """What was taken must be startable, or be refused as the client's fault."""
        try:
            head, rest = exchange(self.socket, "POST", f"/containers/{container}/start", {}, b"", 60, False)
        except Stuck:
            self.fail("start", "POST", path, body, "no answer within a minute")
            return
        status = int(head.split()[1])
        self.count["POST /containers/{id}/start", status] += 1
        if status >= 500 and status != 501:
            self.fail("start", "POST", path, body, f"start: {status} {rest[:300]!r}")

    def fail(self, template, method, path, body, what):
        known = "".join("#" if c in "0123456789abcdef" else c for c in what)[:120]
        self.failures.setdefault((template, method, known), f"{method} {path}\n  {body[:1500]!r}\n  {what}")


def copied(value):
    """A copy whose members can be exchanged; what they are is left as it is."""
    if isinstance(value, dict):
        return {name: copied(member) for name, member in value.items()}
    return [copied(member) for member in value] if isinstance(value, list) else value


def keep_some(body):
    """Of many fields one is always wrong: most requests have few."""
    names = [name for name in body if name not in ("Image", "Cmd", "HostConfig")]
    if dice.random() < 0.8:
        for name in dice.sample(names, max(0, len(names) - dice.randrange(1, 4))):
            del body[name]


def work(path_of_socket, definition, seconds, seed, number, results):
    """A client's process; what goes wrong in the program itself is a failure, too."""
    client = Client(path_of_socket, number)
    try:
        until_the_end(client, definition, seconds, seed)
    except BaseException:
        client.failures["fuzz.py"] = traceback.format_exc()
    results.put((client.count, client.refused, list(client.failures.values())))


def until_the_end(client, definition, seconds, seed):
    number = client.number
    warnings.simplefilter("ignore")
    dice.seed(seed + number)
    schema = schemathesis.openapi.from_dict({**definition, "basePath": "/"})
    operations = [operation.ok() for operation in schema.get_all_operations() if operation.ok().path not in OUTSIDE]
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end:
        dice.shuffle(operations)
        for operation in operations:
            if time.monotonic() >= end:
                break
            if operation.path.startswith(SELDOM) and dice.random() < 0.95:
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
    @hypothesis.settings(max_examples=4, deadline=None, database=None, phases=[hypothesis.Phase.generate],
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


def tell(count, refused):
    """How deep the requests went."""
    for title, of in (("method", lambda operation: operation.split()[0]), ("operation", lambda operation: operation)):
        rows = collections.defaultdict(collections.Counter)
        for (operation, status), number in count.items():
            rows[of(operation)][kind(status)] += number
        for name, row in sorted(rows.items()):
            total = sum(row.values())
            parts = ", ".join(f"{kind} {100 * number / total:.0f} %" for kind, number in sorted(row.items()))
            print(f"{title} {name}: {total} requests: {parts}")
    for (operation, why), number in refused.most_common(60):
        print(f"refused {number} times, {operation}: {why}")


def kind(status):
    if not isinstance(status, int) or status == 501:
        return str(status)
    return "done" if status < 400 else f"{status // 100}xx"


def main():
    path_of_socket, file, seconds, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    with open(file) as text:
        definition = yaml.safe_load(text)
    results = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=work, args=(path_of_socket, definition, seconds, seed, number, results))
               for number in range(2)]
    for worker in workers:
        worker.start()
    count, refused, failures = collections.Counter(), collections.Counter(), []
    for _ in workers:
        counted, refusals, failed = results.get(timeout=seconds + 600)
        count.update(counted)
        refused.update(refusals)
        failures += failed
    for worker in workers:
        worker.join()
    tell(count, refused)
    for failure in failures:
        print(f"--- {failure}")
    print(f"{sum(count.values())} requests, {len(failures)} kinds of failure")
    sys.exit(1 if failures else 0)


main()
