#!/usr/bin/env python3
"""Runs deploy/examples/ on a real PostgreSQL and a real OpenBao, with leases of 12 s and a rotation every 2 s; that in Java with
leases of 90 s, as its pool keeps a connection for 30 s at least.

Each app is first run word for word as its own head says, and answers the request that stands there. Then it takes orders for
a while, then none for longer than any lease, then some more. Every order must be answered, the answers must fit what the
table holds in the end, and sessions must have logged in as many roles. Exit code 0 or 1.

    python3 tests/deploy/examples.py path/to/leasehold [go] [python] [node] [java]      go and python where none is named
"""

import contextlib
import fcntl
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", part) for part in ("bench", "demo", "clients")]
import demo  # noqa: E402  (in tests/demo)
import install  # noqa: E402  (in tests/bench)
import installs  # noqa: E402  (in tests/clients)

DATABASE = "myapp"
WORKERS = 4
ORDERS_AT_LEAST = 200
ROTATIONS_AT_LEAST = 5
STARTS_WITHIN = 60


class Pace:
    """How long credentials live, and connections, and how long orders come; in seconds."""

    def __init__(self, lease, rotate_after, lifetime, busy_for, roles_at_least):
        self.lease, self.rotate_after, self.lifetime = lease, rotate_after, lifetime
        self.busy_for, self.roles_at_least = busy_for, roles_at_least


SHORT = Pace(lease=12, rotate_after=2, lifetime=3, busy_for=16, roles_at_least=5)
# HikariCP takes no lifetime below 30 s, so there are fewer roles to be.
LONG = Pace(lease=90, rotate_after=15, lifetime=30, busy_for=100, roles_at_least=3)


class App:
    """One example: its process, the orders given to it, and what came back."""

    def __init__(self, name, command, environment, log, address=None, directory=None, pace=SHORT):
        self.name, self.log, self.pace = name, log, pace
        self.url = f"http://{address or environment['ADDR']}"
        self.answers, self.failures = [], []
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=environment,
                cwd=directory)

    def wait(self):
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
            except urllib.error.HTTPError:
                return  # it answers; there is nothing at /
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.log) as log:
                    raise demo.Broken(f"{self.name} does not start: {log.read()[-2000:]}")
            time.sleep(0.1)

    def order(self, amount):
        request = urllib.request.Request(f"{self.url}/orders?item={self.name}&amount={amount}", method="POST", data=b"")
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                self.answers.append({**json.load(reply), "amount": amount})
        except urllib.error.HTTPError as error:
            self.failures.append(f"{error.code}: {error.read().decode()}")
        except OSError as error:
            self.failures.append(str(error))

    def take_orders(self, until, stride):
        amount = stride
        while time.monotonic() < until:
            self.order(amount)
            amount += WORKERS
            time.sleep(0.05)

    def busy(self):
        until = time.monotonic() + self.pace.busy_for
        return [threading.Thread(target=self.take_orders, args=(until, stride)) for stride in range(1, WORKERS + 1)]

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def check(self, rows):
        """What the app answered is what the table holds: each order once, and sums that grow to the last one's."""
        demo.expect(not self.failures, f"{self.name}: {len(self.failures)} orders failed, first {self.failures[:1]}")
        demo.expect(len(self.answers) >= ORDERS_AT_LEAST, f"{self.name}: only {len(self.answers)} orders")
        answered = sorted((answer["id"], answer["amount"]) for answer in self.answers)
        demo.expect(answered == sorted(rows), f"{self.name}: the table does not hold what was answered")
        demo.expect(max(answer["total"] for answer in self.answers) == sum(amount for _, amount in rows),
                    f"{self.name}: the last sum is wrong")
        roles = {answer["role"] for answer in self.answers}
        demo.expect(len(roles) >= self.pace.roles_at_least, f"{self.name} has been only {roles}")
        return len(self.answers), len(roles)


class Example:
    """One of deploy/examples/, installed, with what its own head says of how to run it."""

    def __init__(self, name, source, environment, directory):
        self.name, self.environment, self.directory = name, environment, directory
        with open(os.path.join(ROOT, "deploy", "examples", name, source)) as file:
            head = [line.strip("/ \t\n") for line in itertools.takewhile(lambda line: "import" not in line, file)]
        lines = [shlex.split(line.rsplit("&& ", 1)[1]) for line in head if " && " in line]
        demo.expect(len(lines) == 1, f"{source}: {len(lines)} lines say how to run it")
        words = lines[0]
        count = sum(1 for _ in itertools.takewhile(lambda word: re.match("[A-Z_]+=", word), words))
        self.documented = dict(word.split("=", 1) for word in words[:count])
        self.command = words[count:]
        curls = [shlex.split(line) for line in head if line.startswith("curl ")]
        demo.expect([words[:3] for words in curls] == [["curl", "-X", "POST"]], f"{source}: no curl -X POST in its head")
        self.request = f"http://{curls[0][3]}"

    def words(self, leasehold):
        """The variables of its head; what stands there is the port of leasehold, which is another one here."""
        led = {word: value.replace("localhost:6432", leasehold) for word, value in self.documented.items()}
        demo.expect(led != self.documented, f"{self.name}: no URL leads to localhost:6432")
        return {**self.environment, **led}

    def run_as_documented(self, leasehold, log):
        """With the words of its head alone."""
        environment = self.words(leasehold)
        address = urllib.parse.urlsplit(self.request).netloc
        with only_one_on(address):
            app = App(self.name, self.command, environment, log, address, self.directory)
            try:
                app.wait()
                with urllib.request.urlopen(urllib.request.Request(self.request, method="POST", data=b"")) as reply:
                    answer = json.load(reply)
                demo.expect(answer["total"] >= 3, f"{self.name}: {answer}")
            finally:
                app.end()
        demo.say(f"{self.name}: runs as its head says")

    def start(self, leasehold, log, pace):
        """For the long run: at a port of its own, with a pool that fits leases of seconds."""
        lifetime = f"{pace.lifetime}{UNITS.get(self.name, '')}"
        environment = {**self.words(leasehold), "ADDR": f"127.0.0.1:{demo.free_port(0)}", "POOL_LIFETIME": lifetime}
        return App(self.name, self.command, environment, log, directory=self.directory, pace=pace)


@contextlib.contextmanager
def only_one_on(address):
    """Waits for the end of other runs of this test on this machine, as the port is the documented one."""
    with open(os.path.join(tempfile.gettempdir(), "leasehold-examples.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        host, port = address.rsplit(":", 1)
        with socket.socket() as probe:
            demo.expect(probe.connect_ex((host, int(port))), f"something else listens on {address}")
        yield


def go_example(directory, environment):
    source = os.path.join(directory, "go")
    environment = installs.go_program([os.path.join(ROOT, "deploy", "examples", "go", "app.go")], source, environment)
    return Example("go", "app.go", environment, source)


def python_example(_, environment):
    install.ensure("python")
    environment = {**environment, "PYTHONPATH": install.python()}
    return Example("python", "app.py", environment, os.path.join(ROOT, "deploy", "examples", "python"))


def node_example(directory, environment):
    source = os.path.join(directory, "node")
    shutil.copytree(installs.node(), source, symlinks=True)
    shutil.copy(os.path.join(ROOT, "deploy", "examples", "node", "app.mjs"), source)
    return Example("node", "app.mjs", environment, source)


def java_example(directory, environment):
    source = os.path.join(directory, "java")
    os.makedirs(os.path.join(source, "lib"))
    for jar in installs.java().split(os.pathsep):
        os.symlink(jar, os.path.join(source, "lib", os.path.basename(jar)))
    demo.run(["javac", "-d", source, "-cp", installs.java(), os.path.join(ROOT, "deploy", "examples", "java", "App.java")], quiet=True)
    return Example("java", "App.java", environment, source)


EXAMPLES = {"go": go_example, "python": python_example, "node": node_example, "java": java_example}
# In `make test`; the others come with `make clients`, as what they need is installed there.
USUAL = ("go", "python")
UNITS = {"go": "s"}
PACES = {SHORT: ("go", "python", "node"), LONG: ("java",)}


class Stage(demo.Demo):
    """The demo's servers, with short leases, and leasehold as it comes."""

    def __init__(self, binary, pace):
        super().__init__()
        self.binary, self.pace = os.path.abspath(binary), pace

    def start(self):
        self.start_servers(DEFAULT_TTL=f"{self.pace.lease}s", MAX_TTL=f"{self.pace.lease}s")
        self.start_leasehold("--rotate-after", f"{self.pace.rotate_after}s")

    def count(self, metric, label=""):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.metrics()
                   if line.startswith(f"leasehold_{metric}{{") and label in line)

    def orders(self, item):
        rows = self.as_superuser(f"SELECT id, amount FROM orders WHERE item = '{item}'").split()
        return [tuple(int(value) for value in row.split("|")) for row in rows]


def play(stage, names):
    stage.start()
    leasehold = f"127.0.0.1:{stage.port}"
    with contextlib.ExitStack() as ends:
        apps = []
        for name in names:
            # Nothing of the caller's shell; no password, no token, no address of Vault.
            environment = {"PATH": os.environ["PATH"], "HOME": stage.dir}
            example = EXAMPLES[name](stage.dir, environment)
            log = os.path.join(stage.dir, f"{name}.log")
            example.run_as_documented(leasehold, log)
            apps.append(example.start(leasehold, log, stage.pace))
            ends.callback(apps[-1].end)
            apps[-1].wait()
        before = stage.count("rotations_total")
        work = [thread for app in apps for thread in app.busy()]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        rotations = stage.count("rotations_total") - before
        demo.expect(rotations >= ROTATIONS_AT_LEAST, f"only {rotations:.0f} rotations under load")
        # Longer than a lease: whatever the pools keep open is closed by then.
        time.sleep(stage.pace.lease + 1)
        for app in apps:
            for amount in range(1, 21):
                app.order(amount)
        for app in apps:
            try:
                orders, roles = app.check(stage.orders(app.name))
            except demo.Broken as broken:
                with open(app.log, errors="replace") as log:
                    raise demo.Broken(f"{broken}\n{log.read()[-3000:]}") from None
            demo.say(f"{app.name}: {orders} orders, every one answered once, as {roles} roles")
        cut = stage.count("sessions_closed_total", 'cause="lease_end')
        demo.expect(not cut, f"{cut:.0f} sessions were still busy at the end of their lease")
        demo.say(f"{rotations:.0f} rotations under load")
    stage.stop()


def main():
    binary, *names = sys.argv[1:]
    for pace, those in PACES.items():
        wanted = [name for name in those if name in (names or USUAL)]
        if not wanted:
            continue
        stage = Stage(binary, pace)
        try:
            play(stage, wanted)
        except (demo.Broken, install.Missing, subprocess.SubprocessError, OSError) as error:
            print(f"examples: {error}\n{stage.log_tail()}", file=sys.stderr)
            return 1
        finally:
            stage.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
