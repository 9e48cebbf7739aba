#!/usr/bin/env python3
"""How fast leasehold is: direct, PgBouncer and leasehold side by side, on one PostgreSQL, in one run.

Everybody shares this machine, so only ratios say anything, and only those of one round: in each round every endpoint
does the same work, and the order rotates from round to round. A ratio is given as the median over the rounds, with the
least and the greatest. Prints a Markdown table and writes it to .dev/bench.md.

    make bench                                          under five minutes after the build
    python3 benches/run.py --only direct,pgbouncer      without building or starting leasehold
    python3 benches/run.py --rounds 9 --seconds 10      longer, for a figure that is to be quoted

PostgreSQL and OpenBao are started by tests/bench/servers.py; PgBouncer is Debian's, and is left out where it cannot be
installed. Python's standard library only. What is measured:

  tps        pgbench -S -M prepared at 8 and at 64 clients, and the proxy's CPU time for each transaction
  wide read  rows of 64 KiB, read by a client that only counts bytes
  COPY in    rows of 8 KiB that the server throws away (WHERE false)
  connect    TCP connect, login, `select 1`; the client is this program, so libpq's own cost is not in it
  memory     the proxy's resident memory with 0, 500 and 1000 idle sessions, in a fresh process
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEV = os.path.join(ROOT, ".dev")
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import install  # noqa: E402  (its directory has just been put on the path)

DATABASE = "bench"
USER, PASSWORD = "bench", "bench-password"
STARTS_WITHIN = 30  # seconds, for a proxy
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """The bench cannot go on; the text says why."""


class Servers:
    """tests/bench/servers.py: it starts the servers, and takes them down when its stdin closes."""

    def __init__(self):
        program = os.path.join(ROOT, "tests", "bench", "servers.py")
        self.process = subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **command):
        print(json.dumps(command), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        reply = json.loads(line) if line else {"error": "servers.py has gone"}
        if "error" in reply:
            raise Failed(f"{command}: {reply['error']}\n{reply.get('log', '')}")
        return reply

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Endpoint:
    """Where clients of one kind connect. `password` is empty where none is asked for."""

    def __init__(self, name, port, user=USER, password=""):
        self.name, self.port, self.user, self.password = name, port, user, password
        self.process = None

    def environment(self):
        ours = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": self.user, "PGDATABASE": DATABASE,
                "PGSSLMODE": "disable", "PGGSSENCMODE": "disable", "PGPASSFILE": "/dev/null"}
        rest = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return rest | ours | ({"PGPASSWORD": self.password} if self.password else {})

    def cpu(self):
        """Seconds of CPU time that the proxy has used; 0 for a direct connection."""
        if self.process is None:
            return 0.0
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident(self):
        """KiB of resident memory."""
        try:
            with open(f"/proc/{self.process.pid}/smaps_rollup") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))
        except PermissionError:
            # leasehold shuts its memory off from others of its user; only root may look. This figure is less exact.
            with open(f"/proc/{self.process.pid}/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize() // 1024

    def start(self):
        """A proxy starts afresh, on its port."""

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def launch(self, command, log, **options):
        with open(log, "w") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options)
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            with contextlib.suppress(OSError, EOFError, RuntimeError):
                client = Client(self)
                client.query("select 1")
                client.close()
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(log, errors="replace") as file:
                    raise Failed(f"{self.name} did not start: {' '.join(command)}\n{file.read()[-2000:]}")
            time.sleep(0.1)


class PgBouncer(Endpoint):
    """Session pooling, the mode that keeps what a session may rely on, as leasehold does."""

    def __init__(self, program, postgres, home):
        super().__init__("pgbouncer", free_port())
        self.program, self.home = program, os.path.join(home, "pgbouncer")
        self.options = {}
        os.mkdir(self.home)
        settings = os.path.join(self.home, "pgbouncer.ini")
        users = os.path.join(self.home, "users.txt")
        with open(users, "w") as file:
            file.write(f'"{USER}" "{PASSWORD}"\n')
        with open(settings, "w") as file:
            file.write(f"""[databases]
{DATABASE} = host=127.0.0.1 port={postgres['port']} dbname={DATABASE}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = session
max_client_conn = 2000
default_pool_size = 1100
log_connections = 0
log_disconnections = 0
""")
        if os.geteuid() == 0:
            # It refuses to run as root; the supervisor has found a user for PostgreSQL, so take the same.
            owner = os.stat(postgres["data_dir"])
            self.options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
            for path in (self.home, settings, users):
                os.chown(path, owner.st_uid, owner.st_gid)

    def start(self):
        self.launch([self.program, os.path.join(self.home, "pgbouncer.ini")],
                    os.path.join(DEV, "bench-pgbouncer.log"), **self.options)


class Leasehold(Endpoint):
    """The release build, with a route to a role that Vault makes."""

    def __init__(self, program, postgres, openbao, login):
        super().__init__("leasehold", free_port(), user="app")
        with open(os.path.join(login, "role_id")) as file:
            role_id = file.read().strip()
        self.command = [
            program, "run", "--listen", f"127.0.0.1:{self.port}", "--http", "off", "--admin", "off",
            "--upstream", f"postgresql://127.0.0.1:{postgres['port']}/?sslmode=disable",
            "--vault-addr", openbao["addr"], "--vault-path", "database/creds/app-role",
            "--vault-auth-method", "approle", "--vault-auth-role-id", role_id,
            "--vault-auth-secret-id-file", os.path.join(login, "secret_id")]

    def start(self):
        foreign = ("LEASEHOLD_", "BAO_", "VAULT_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.launch(self.command, os.path.join(DEV, "bench-leasehold.log"), env=environment)


class Client:
    """As much of the protocol as the bench needs: login by trust or SCRAM-SHA-256, simple queries, COPY in."""

    def __init__(self, endpoint):
        self.buffer = b""
        self.socket = socket.create_connection(("127.0.0.1", endpoint.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        parameters = f"user\0{endpoint.user}\0database\0{DATABASE}\0\0".encode()
        self.socket.sendall(struct.pack("!II", len(parameters) + 8, 3 << 16) + parameters)
        while True:
            kind, body = self.message()
            if kind == b"R":
                self.authenticate(struct.unpack("!I", body[:4])[0], body[4:], endpoint.password)
            elif kind == b"E":
                raise RuntimeError(body)
            elif kind == b"Z":
                return

    def authenticate(self, request, body, password):
        if request == 10:
            nonce = base64.b64encode(os.urandom(18)).decode()
            self.first = f"n=,r={nonce}"
            message = f"n,,{self.first}".encode()
            self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(message)) + message)
        elif request == 11:
            challenge = body.decode()
            said = dict(part.split("=", 1) for part in challenge.split(","))
            salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(said["s"]), int(said["i"]))
            key = hmac.digest(salted, b"Client Key", "sha256")
            last = "c=biws,r=" + said["r"]
            signed = hmac.digest(hashlib.sha256(key).digest(), f"{self.first},{challenge},{last}".encode(), "sha256")
            proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signed))).decode()
            self.send(b"p", f"{last},p={proof}".encode())
        elif request not in (0, 12):
            raise RuntimeError(f"authentication request {request}")

    def send(self, kind, body=b""):
        self.socket.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def message(self):
        while len(self.buffer) < 5 or len(self.buffer) < 1 + struct.unpack("!I", self.buffer[1:5])[0]:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self.buffer += more
        end = 1 + struct.unpack("!I", self.buffer[1:5])[0]
        kind, body, self.buffer = self.buffer[:1], self.buffer[5:end], self.buffer[end:]
        return kind, body

    def until(self, wanted):
        while True:
            kind, body = self.message()
            if kind == b"E":
                raise RuntimeError(body)
            if kind == wanted:
                return

    def query(self, sql):
        self.send(b"Q", sql.encode() + b"\0")
        self.until(b"Z")

    def read_all(self, sql):
        """The bytes of the answer, not looked at, up to ReadyForQuery."""
        self.send(b"Q", sql.encode() + b"\0")
        into = memoryview(bytearray(1 << 20))
        total, tail = 0, b""
        while tail != b"Z\0\0\0\5I":
            got = self.socket.recv_into(into)
            if got == 0:
                raise EOFError
            total += got
            tail = (tail + bytes(into[max(0, got - 6):got]))[-6:]
        return total

    def copy_in(self, sql, total):
        self.send(b"Q", sql.encode() + b"\0")
        self.until(b"G")
        rows = (b"y" * 8190 + b"\n") * 8
        message = b"d" + struct.pack("!I", len(rows) + 4) + rows
        sent = 0
        while sent < total:
            self.socket.sendall(message)
            sent += len(message)
        self.send(b"c")
        self.until(b"Z")
        return sent

    def close(self):
        with contextlib.suppress(OSError):
            self.send(b"X")
        self.socket.close()


# What one endpoint does in one round. Each gives {measure: value}.

def transactions(endpoint, clients, seconds):
    before = endpoint.cpu()
    said = run([install.client("pgbench"), "-n", "-S", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)),
                "-T", str(seconds)], env=endpoint.environment())
    used = endpoint.cpu() - before
    done = int(re.search(r"actually processed: (\d+)", said).group(1))
    values = {f"tps, {clients} clients": float(re.search(r"^tps = ([\d.]+)", said, re.M).group(1))}
    if endpoint.process is not None:
        values[f"proxy CPU, {clients} clients"] = used * 1e6 / done
    return values


def bulk(endpoint, measure, move):
    client = Client(endpoint)
    before, began = endpoint.cpu(), time.monotonic()
    moved = move(client)
    took, used = time.monotonic() - began, endpoint.cpu() - before
    client.close()
    values = {measure: moved / 1e6 / took}
    if endpoint.process is not None:
        values[f"proxy CPU, {measure}"] = used / (moved / 1e9)
    return values


def connects(endpoint, count):
    spans = []
    for _ in range(count):
        began = time.perf_counter()
        client = Client(endpoint)
        client.query("select 1")
        spans.append((time.perf_counter() - began) * 1e3)
        client.close()
        time.sleep(0.002)  # the server's process of the last one ends meanwhile
    return {"connect p50": statistics.median(spans)}


def memory(endpoint, points, postgres):
    """RSS in KiB at each number of sessions, in a process that has just started."""
    endpoint.stop()
    wait_for_backends(postgres)
    endpoint.start()
    clients, resident = [], []
    for count in points:
        while len(clients) < count:
            clients.append(Client(endpoint))
            clients[-1].query("select 1")
        time.sleep(0.5)
        resident.append(endpoint.resident())
    for client in clients:
        client.close()
    endpoint.stop()
    wait_for_backends(postgres)
    return {"memory, empty": resident[0] / 1024, "memory, idle session": (resident[-1] - resident[0]) / points[-1]}


def wait_for_backends(postgres):
    """Until the sessions of a proxy that was stopped have left the server."""
    deadline = time.monotonic() + 30
    count = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
    while int(psql(postgres, count)) > 10 and time.monotonic() < deadline:
        time.sleep(0.2)


# The table.

UNITS = {"proxy CPU, 8 clients": "µs/txn", "proxy CPU, 64 clients": "µs/txn", "wide read": "MB/s", "COPY in": "MB/s",
         "proxy CPU, wide read": "s/GB", "proxy CPU, COPY in": "s/GB", "connect p50": "ms", "memory, empty": "MiB",
         "memory, idle session": "KiB"}
PAIRS = [("leasehold", "direct"), ("leasehold", "pgbouncer"), ("pgbouncer", "direct")]


def table(names, rounds):
    """`rounds` holds, for each measure in order, one {endpoint: value} a round."""
    pairs = [(one, other) for one, other in PAIRS if one in names and other in names]
    head = ["", *names, *(f"{one} / {other}" for one, other in pairs)]
    lines = [row(head), row(["---"] + ["---:"] * (len(head) - 1))]
    for measure, values in rounds.items():
        cells = [f"{measure}, {UNITS[measure]}" if measure in UNITS else measure]
        for name in names:
            of_name = [value[name] for value in values if name in value]
            cells.append(figure(statistics.median(of_name)) if of_name else "–")
        for one, other in pairs:
            ratios = [value[one] / value[other] for value in values if one in value and value.get(other)]
            cells.append(ratio(ratios) if ratios else "–")
        lines.append(row(cells))
    return "\n".join(lines)


def row(cells):
    return "| " + " | ".join(cells) + " |"


def figure(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def ratio(ratios):
    middle = f"{statistics.median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}–{max(ratios):.2f})"


# Setting up.

def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def superuser(postgres, database=DATABASE):
    rest = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return rest | {"PGHOST": postgres["host"], "PGPORT": str(postgres["port"]), "PGUSER": postgres["superuser"],
                   "PGPASSWORD": postgres["password"], "PGDATABASE": database, "PGSSLMODE": "disable"}


def psql(postgres, sql):
    return run([install.client("psql"), "-qXAt", "-v", "ON_ERROR_STOP=1", "-c", sql], env=superuser(postgres)).strip()


def prepare(postgres, openbao, home, scale):
    """The database engine, a user with a password for those who need one, the tables. Returns where the login is."""
    login = os.path.join(home, "login")
    environment = superuser(postgres, "postgres") | {
        "BAO": install.bao(), "BAO_ADDR": openbao["addr"], "BAO_TOKEN": openbao["root_token"], "APP_DATABASE": DATABASE}
    psql_home = os.path.dirname(install.client("psql"))
    environment["PATH"] = f"{psql_home}:{environment['PATH']}"
    run([os.path.join(ROOT, "deploy", "vault", "setup.sh"), login], env=environment)
    run([install.client("pgbench"), "-i", "-q", "-s", str(scale)], env=superuser(postgres))
    psql(postgres, f"""create role {USER} login password '{PASSWORD}' in role app_owner;
        create unlogged table copied_in (line text);
        grant all on all tables in schema public to app_owner""")
    psql(postgres, "vacuum analyze")
    return login


def build():
    """The release binary."""
    run_cargo = subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    if run_cargo.returncode != 0:
        raise Failed("cargo build failed")
    said = run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"], cwd=ROOT)
    return os.path.join(json.loads(said)["target_directory"], "release", "leasehold")


def find_pgbouncer():
    """Its path, installed if need be; None where it can be neither found nor installed."""
    def found():
        return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if found() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say("installs pgbouncer by apt-get")
        command = "apt-get update && apt-get install -y --no-install-recommends pgbouncer"
        subprocess.run(["sh", "-c", command], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return found()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def raise_limit():
    """A proxy needs two descriptors a session. Returns the most sessions that fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(hard, 8192)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(1000, max((max(soft, wanted) - 200) // 2, 0))


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "CPU")
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(endpoints, options, sessions, postgres):
    """{measure: [{endpoint: value}, ...]}, one element a round."""
    wide = f"select repeat('x', 65536) from generate_series(1, {options.wide_mb * 16})"
    copy = "copy copied_in from stdin where false"
    tests = [
        ("tps, 8 clients", lambda endpoint: transactions(endpoint, 8, options.seconds)),
        ("tps, 64 clients", lambda endpoint: transactions(endpoint, 64, options.seconds)),
        ("wide read", lambda endpoint: bulk(endpoint, "wide read", lambda client: client.read_all(wide))),
        ("COPY in", lambda endpoint: bulk(endpoint, "COPY in", lambda client: client.copy_in(copy, options.copy_mb << 20))),
        ("connect", lambda endpoint: connects(endpoint, options.connects)),
    ]
    for endpoint in endpoints:
        # Caches fill, and PgBouncer opens its server sessions, one after the other, for all rounds to come.
        transactions(endpoint, 64, 1)
    rounds = {}
    for name, test in tests:
        for number in range(options.rounds):
            turn = number % len(endpoints)
            seen = {}
            for endpoint in endpoints[turn:] + endpoints[:turn]:
                for what, value in test(endpoint).items():
                    seen.setdefault(what, {})[endpoint.name] = value
                time.sleep(0.1)
            for what, values in seen.items():
                rounds.setdefault(what, []).append(values)
            first = next(iter(seen.values()))
            say(f"{name}, round {number + 1}: " + ", ".join(f"{who} {figure(value)}" for who, value in first.items()))
    seen = {}
    for endpoint in endpoints:
        if endpoint.process is not None:
            for what, value in memory(endpoint, [0, sessions // 2, sessions], postgres).items():
                seen.setdefault(what, {})[endpoint.name] = value
    for what, values in seen.items():
        rounds[what] = [values]
    return rounds


def bench(options, servers, cleanup):
    wanted = options.only.split(",")
    program = build() if "leasehold" in wanted and not options.binary else options.binary
    pgbouncer = find_pgbouncer() if "pgbouncer" in wanted else None
    if "pgbouncer" in wanted and pgbouncer is None:
        say("PgBouncer is left out: it is not installed (Debian: apt-get install pgbouncer)")
    sessions = raise_limit()

    postgres = servers.ask(start="postgres", name="postgres",
                           conf={"max_connections": "1150", "shared_buffers": "512MB", "autovacuum": "off"})
    openbao = servers.ask(start="openbao", name="openbao")
    home = servers.ask(dir=True)["dir"]
    login = prepare(postgres, openbao, home, options.scale)

    endpoints = []
    if "direct" in wanted:
        endpoints.append(Endpoint("direct", postgres["port"], password=PASSWORD))
    if pgbouncer:
        endpoints.append(PgBouncer(pgbouncer, postgres, home))
    if "leasehold" in wanted:
        endpoints.append(Leasehold(program, postgres, openbao, login))
    for endpoint in endpoints:
        cleanup.callback(endpoint.stop)
        endpoint.start()

    rounds = measure(endpoints, options, sessions, postgres)
    version = psql(postgres, "show server_version").split()[0]
    peer = run([pgbouncer, "--version"]).splitlines()[0] if pgbouncer else "no PgBouncer"
    return f"""{table([endpoint.name for endpoint in endpoints], rounds)}

{time.strftime('%Y-%m-%d')}, {machine()}; PostgreSQL {version}, {peer} (session pooling). {options.rounds} rounds of \
{options.seconds} s, order rotated; client, proxy and server share the machine. Ratio: median of the rounds (least–greatest). \
Wide read {options.wide_mb} MiB, COPY in {options.copy_mb} MiB, {options.connects} connects a round, {sessions} idle sessions. \
Direct connects log in by SCRAM; PgBouncer asks its clients for no password and reuses server sessions, leasehold \
logs in upstream for each.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="direct,pgbouncer,leasehold", help="which endpoints, with commas")
    parser.add_argument("--binary", help="a leasehold that is built already")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each pgbench run")
    parser.add_argument("--wide-mb", type=int, default=512)
    parser.add_argument("--copy-mb", type=int, default=256)
    parser.add_argument("--connects", type=int, default=150, help="in each round")
    parser.add_argument("--scale", type=int, default=10, help="of pgbench's tables")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - {"direct", "pgbouncer", "leasehold"}
    if unknown:
        parser.error(f"no such endpoint: {', '.join(sorted(unknown))}")

    os.makedirs(DEV, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as cleanup:
        servers = Servers()
        cleanup.callback(servers.close)
        report = bench(options, servers, cleanup)
    with open(os.path.join(DEV, "bench.md"), "w") as file:
        file.write(report)
    print(report)


if __name__ == "__main__":
    try:
        main()
    except (Failed, install.Missing) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
