#!/usr/bin/env python3
"""How fast leasehold is: beside a direct connection, PgBouncer and HAProxy, on one PostgreSQL, in one run.

Everybody shares this machine, so only ratios say anything, and only those of one round: in each round every endpoint
does the same work, and the order rotates from round to round. A ratio is given as the median over the rounds, with the
least and the greatest. Writes benches/results/README.md and SVG plots beside it, and prints the tables.

    make bench                                                 about half an hour after the build
    python3 benches/run.py --cases select,bulk --rounds 3      some of it
    python3 benches/run.py --rounds 9 --seconds 10             longer, for a figure that is to be quoted
    python3 benches/run.py --pgbouncer PATH                    with another PgBouncer than Debian's
    python3 benches/run.py --list                              what the cases are

PostgreSQL and OpenBao are started by tests/bench/servers.py; PgBouncer (session mode) and HAProxy (TCP mode) are
Debian's, and are left out where they cannot be installed. Python's standard library only.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shlex
import signal
import subprocess
import sys
import time

import cases
import report
from endpoints import (DATABASE, DEV, PASSWORD, ROOT, USER, Endpoint, Failed, HAProxy, Leasehold, PgBouncer, find)

import install  # in tests/bench, which endpoints puts on the path

CROWD = 10_000
RESULTS = os.path.join(ROOT, "benches", "results")
CASES = {
    "select": "select-only with 8, 64 and 500 clients, with simple queries, pipelined; TPC-B; over a Unix socket",
    "cpu": "select-only with one client, all on one processor",
    "bulk": "wide and narrow rows, COPY out and in",
    "tls": "TLS to PostgreSQL: select-only, a wide read, connects",
    "connect": "connect, log in, `select 1`: one by one, eight at once, by libpq",
    "rotation": "select-only through a rotation every two seconds, beside the same without any",
    "fairness": "small transactions beside a COPY",
    "idle": "memory, files and CPU with idle sessions; memory after a burst of logins",
    "crowd": "memory and files with ten thousand idle sessions, or as many as files allow, and with as many silent clients",
    "start": "from the process's start to its readiness",
}


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


class Bench:
    """The servers, the endpoints, and what has been measured so far."""

    def __init__(self, options, servers, cleanup):
        self.options, self.cleanup, self.rounds = options, cleanup, {}
        wanted = options.only.split(",")
        program = build() if "leasehold" in wanted and not options.binary else options.binary
        pgbouncer = (options.pgbouncer or find("pgbouncer", say)) if "pgbouncer" in wanted else None
        haproxy = find("haproxy", say) if "haproxy" in wanted else None
        self.sessions = sessions_that_fit(options.sessions)
        most = max([*self.sessions, 1200]) + 100  # PgBouncer keeps its 500 beside those of the next endpoint
        self.postgres = servers.ask(start="postgres", name="postgres", ssl=True,
                                    conf={"max_connections": str(most), "shared_buffers": "512MB", "autovacuum": "off"})
        openbao = servers.ask(start="openbao", name="openbao")
        home = servers.ask(dir=True)["dir"]
        login = prepare(self.postgres, openbao, home, options.scale)

        def leasehold(server=self.postgres, **more):
            return Leasehold(program, server, openbao, login, home, **more)

        self.servers, self.leasehold = servers, leasehold

        self.plain, self.tls, self.rotating, self.connecting = [], [], [], []
        if "direct" in wanted:
            self.plain.append(Endpoint("direct", self.postgres["port"], password=PASSWORD))
            self.tls.append(Endpoint("direct", self.postgres["port"], password=PASSWORD, tls=True))
        if pgbouncer:
            self.plain.append(PgBouncer(pgbouncer, self.postgres, home))
            self.tls.append(PgBouncer(pgbouncer, self.postgres, home, name="pgbouncer tls", tls_upstream=True))
        if haproxy:
            self.plain.append(HAProxy(haproxy, self.postgres, home))
        if "leasehold" in wanted:
            self.plain.append(leasehold())
            self.tls.append(leasehold(name="leasehold tls", tls_upstream=True))
            for also in options.also:
                other, name, flags = another(also)
                self.plain.append(Leasehold(other, self.postgres, openbao, login, home, name=name, flags=flags))
                self.tls.append(Leasehold(other, self.postgres, openbao, login, home, name=f"{name} tls",
                                          tls_upstream=True, flags=flags))
            self.connecting = [leasehold(name="leasehold warm", flags=["--warm", "16"]),
                               leasehold(name="leasehold reuse", flags=["--reuse=true"])]
            self.rotating = [leasehold(name="without rotations"),
                             leasehold(name="with rotations", flags=["--rotate-after", "2s"])]
        self.peers = [pgbouncer, haproxy]

    def run(self):
        """Runs the cases that are wanted; gives the report."""
        wanted = self.options.cases.split(",") if self.options.cases else list(CASES)
        sections = []
        for name in wanted:
            sections += getattr(self, f"run_{name}")()
        return sections

    def run_select(self):
        seconds, scale = self.options.seconds, self.options.scale
        tests = [lambda endpoint: cases.select_only(endpoint, seconds, 8), lambda endpoint: cases.select_only(endpoint, seconds, 64),
                 lambda endpoint: cases.select_only(endpoint, seconds, 500), lambda endpoint: cases.simple(endpoint, seconds),
                 lambda endpoint: cases.pipelined(endpoint, seconds, scale),
                 lambda endpoint: cases.tpc_b(endpoint, seconds)]
        rounds = self.measure("select", self.plain, tests)

        def by_unix(endpoint):
            other = endpoint.unix() if hasattr(endpoint, "unix") else endpoint.over(host=self.postgres["socket_dir"])
            return cases.select_only(other, seconds, 8, "select-only, 8 clients, Unix socket")

        rounds |= self.measure("Unix socket", [endpoint for endpoint in self.plain if endpoint.kind != "haproxy"], [by_unix])
        return [("Transactions", self.plain, rounds)]

    def run_cpu(self):
        test = [lambda endpoint: cases.on_one_cpu(endpoint, self.options.seconds, self.postgres)]
        return [("One processor", self.plain, self.measure("cpu", self.plain, test))]

    def run_bulk(self):
        size = self.options.megabytes
        tests = [lambda endpoint: cases.wide_read(endpoint, size * 2), lambda endpoint: cases.narrow_read(endpoint, size // 4),
                 lambda endpoint: cases.copy_out(endpoint, size), lambda endpoint: cases.copy_in(endpoint, size)]
        return [("Bulk", self.plain, self.measure("bulk", self.plain, tests))]

    def run_tls(self):
        seconds, size, count = self.options.seconds, self.options.megabytes, self.options.connects
        tests = [lambda endpoint: cases.select_only(endpoint, seconds, 8), lambda endpoint: cases.select_only(endpoint, seconds, 64),
                 lambda endpoint: cases.wide_read(endpoint, size * 2),
                 lambda endpoint: cases.connects(endpoint, count, "connect one by one")]
        return [("TLS to PostgreSQL", self.tls, self.measure("tls", self.tls, tests))]

    def run_connect(self):
        count, seconds = self.options.connects, self.options.seconds
        tests = [lambda endpoint: cases.connects(endpoint, count, "connect one by one"),
                 lambda endpoint: cases.connects(endpoint, count // 2, "connect 20 ms apart", pause=0.02),
                 lambda endpoint: cases.connects_at_once(endpoint, count, "connect eight at once"),
                 lambda endpoint: cases.connect_rate(endpoint, seconds, 1), lambda endpoint: cases.connect_rate(endpoint, seconds, 8)]
        endpoints = self.plain + self.connecting
        return [("Connects", endpoints, self.measure("connect", endpoints, tests))]

    def run_rotation(self):
        # Three rotations and more in each round.
        seconds = max(self.options.seconds, 8)
        test = [lambda endpoint: cases.through_rotations(endpoint, seconds)]
        return [("Rotation", self.rotating, self.measure("rotation", self.rotating, test))]

    def run_fairness(self):
        test = [lambda endpoint: cases.beside_a_copy(endpoint, max(self.options.seconds, 4), self.options.megabytes)]
        return [("Beside a COPY", self.plain, self.measure("fairness", self.plain, test))]

    def run_start(self):
        ours = [endpoint for endpoint in self.plain if endpoint.kind == "leasehold"]
        return [("Start", ours, self.measure("start", ours, [cases.cold_start], warm=False))]

    def run_idle(self):
        proxies = [endpoint for endpoint in self.plain if endpoint.kind != "direct"]
        points = [0, *self.sessions]
        seen, rounds = {}, {}
        for endpoint in proxies:
            say(f"idle sessions: {endpoint.name}")
            seen[endpoint.name] = cases.idle_sessions(endpoint, points, self.wait_for_backends)
            for measure, value in cases.burst(endpoint, min(2000, max(points)), self.wait_for_backends).items():
                rounds.setdefault(measure, [{}])[0][endpoint.name] = value
        return [("Idle sessions", report.idle_table(points, seen), None), ("A burst of logins", proxies, rounds)]

    def run_crowd(self):
        # Each session takes two descriptors, and some are kept for leases.
        count = min(CROWD, (allow_files(2 * CROWD + 300) - 200) // 200 * 100)
        # It shares its server sessions: ten thousand of PostgreSQL's processes would take 20 GiB.
        settings = {"pool_mode": "transaction", "max_client_conn": str(count + 100)}
        pooler = self.servers.ask(start="pgbouncer", name="pooler", to="postgres", settings=settings)
        flags = ["--limits-max-sessions", str(count), "--limits-handshake-timeout", "10m"]
        endpoint = self.leasehold(pooler, name="leasehold crowd", flags=flags)
        return [("A crowd", report.crowd_table(cases.crowd(endpoint, count)), None)]

    def measure(self, title, endpoints, tests, warm=True):
        """{measure: [{endpoint: value}, ...]}, one element a round. The endpoints run only meanwhile."""
        rounds = {}
        with contextlib.ExitStack() as running:
            for endpoint in endpoints:
                running.callback(endpoint.stop)
                endpoint.start()
                if warm:
                    cases.warm_up(endpoint)
            steps, done = len(tests) * self.options.rounds * len(endpoints), 0
            for test in tests:
                for number in range(self.options.rounds):
                    turn = number % len(endpoints)
                    seen = {}
                    for endpoint in endpoints[turn:] + endpoints[:turn]:
                        for what, value in test(endpoint).items():
                            seen.setdefault(what, {})[endpoint.name] = value
                        done += 1
                        time.sleep(0.1)
                    for what, values in seen.items():
                        rounds.setdefault(what, []).append(values)
                    what, values = next(iter(seen.items()))
                    figures = ", ".join(f"{who} {report.figure(value)}" for who, value in sorted(values.items()))
                    say(f"[{title} {done * 100 // steps:3} %] {what}, round {number + 1}: {figures}")
        return rounds

    def wait_for_backends(self):
        """Until the sessions of a proxy that was stopped have left the server."""
        deadline = time.monotonic() + 60
        count = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        while int(psql(self.postgres, count)) > 10 and time.monotonic() < deadline:
            time.sleep(0.2)

    def described(self):
        version = psql(self.postgres, "show server_version").split()[0]
        pgbouncer, haproxy = self.peers
        peers = [cases.run([pgbouncer, "--version"]).splitlines()[0] + " (session pooling)" if pgbouncer else None,
                 " ".join(cases.run([haproxy, "-v"]).split()[:3]) + " (TCP mode)" if haproxy else None]
        options = self.options
        return f"""{time.strftime('%Y-%m-%d')}, {machine()}; PostgreSQL {version}{''.join(f', {peer}' for peer in peers if peer)}. \
{options.rounds} rounds of {options.seconds} s, order rotated; client, proxy and server share the machine. Ratio: median of \
the rounds (least–greatest). Bulk of {options.megabytes} MiB, {options.connects} connects a round. Direct connects and those by \
HAProxy log in by SCRAM; PgBouncer asks its clients for no password and reuses server sessions, leasehold logs in upstream for each, but with `reuse`."""


def superuser(postgres, database=DATABASE):
    rest = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return rest | {"PGHOST": postgres["host"], "PGPORT": str(postgres["port"]), "PGUSER": postgres["superuser"],
                   "PGPASSWORD": postgres["password"], "PGDATABASE": database, "PGSSLMODE": "disable"}


def psql(postgres, sql):
    return cases.run([install.client("psql"), "-qXAt", "-v", "ON_ERROR_STOP=1", "-c", sql], env=superuser(postgres)).strip()


def prepare(postgres, openbao, home, scale):
    """The database engine, a user with a password for those who need one, the tables. Returns where the login is."""
    login = os.path.join(home, "login")
    environment = superuser(postgres, "postgres") | {
        "BAO": install.bao(), "BAO_ADDR": openbao["addr"], "BAO_TOKEN": openbao["root_token"], "APP_DATABASE": DATABASE}
    psql_home = os.path.dirname(install.client("psql"))
    environment["PATH"] = f"{psql_home}:{environment['PATH']}"
    cases.run([os.path.join(ROOT, "deploy", "vault", "setup.sh"), login], env=environment)
    cases.run([install.client("pgbench"), "-i", "-q", "-s", str(scale)], env=superuser(postgres))
    psql(postgres, f"""create role {USER} login password '{PASSWORD}' in role app_owner;
        create unlogged table copied_in (line text);
        grant all on all tables in schema public to app_owner""")
    psql(postgres, "vacuum analyze")
    return login


def another(also):
    """Of NAME=PATH FLAG…: the program, the name, the flags."""
    name, found, command = also.partition("=")
    program, *flags = shlex.split(command) or [""]
    if not found or not os.access(program, os.X_OK):
        raise Failed(f"--also {also}: NAME=PATH FLAG… is wanted, with the path of a leasehold")
    return program, name, flags


def build():
    """The release binary."""
    run_cargo = subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    if run_cargo.returncode != 0:
        raise Failed("cargo build failed")
    said = cases.run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"], cwd=ROOT)
    return os.path.join(json.loads(said)["target_directory"], "release", "leasehold")


def allow_files(count):
    """Raises the limit of open files, which processes that are started later inherit; gives what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else max(hard, count)
    with contextlib.suppress(ValueError, OSError):
        # Above the hard limit: only root may.
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def sessions_that_fit(wanted):
    """How many idle sessions are measured: what files and memory allow of what is wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(count) for count in wanted.split(","))
    files = most * 2 + 1000
    if soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(hard, files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with open("/proc/meminfo") as file:
        free = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    # A backend that has done nothing takes about two MiB.
    fits = min((soft - 1000) // 2, free // 1024 // 3)
    fit = sorted({min(int(count), fits) for count in wanted.split(",")})
    if fit[-1] < most:
        say(f"no more than {fit[-1]} idle sessions fit this machine")
    return fit


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "CPU")
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


PLOTS = {
    "Transactions": ("transactions.svg", "Transactions a second, direct = 1", "direct"),
    "Bulk": ("bulk.svg", "MB a second, direct = 1", "direct"),
    "Connects": ("connects.svg", "Connect and one query: time, direct = 1", "direct"),
    "TLS to PostgreSQL": ("tls.svg", "With TLS to PostgreSQL, direct = 1", "direct"),
}


def write(sections, described):
    """The tables as one document, the plots beside it."""
    os.makedirs(RESULTS, exist_ok=True)
    text = ["# Results of `make bench`\n", described, ""]
    for title, endpoints, rounds in sections:
        text += [f"## {title}\n"]
        if rounds is None:
            text += [endpoints, ""]
            continue
        names = [endpoint.name for endpoint in endpoints]
        subject = next((name for name in ("leasehold", "leasehold tls", "with rotations") if name in names), names[0])
        text += [report.table(names, rounds, subject), ""]
        file, caption, against = PLOTS.get(title, (None, None, None))
        measures = [measure for measure in rounds if not measure.startswith("proxy CPU") and not measure.endswith("p99")]
        plot = report.bars(caption, names, rounds, measures, against) if file and against in names else None
        if plot:
            with open(os.path.join(RESULTS, file), "w") as out:
                out.write(plot)
            text += [f"![{caption}]({file})", ""]
    document = "\n".join(text)
    with open(os.path.join(RESULTS, "README.md"), "w") as out:
        out.write(document)
    print(document)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="direct,pgbouncer,haproxy,leasehold", help="which endpoints, with commas")
    parser.add_argument("--cases", default="", help="which cases, with commas; all where none are named")
    parser.add_argument("--list", action="store_true", help="print the cases")
    parser.add_argument("--binary", help="a leasehold that is built already")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=PATH FLAG…",
                        help="another leasehold beside it: an earlier build, or other flags")
    parser.add_argument("--pgbouncer", help="another PgBouncer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each pgbench run")
    parser.add_argument("--megabytes", type=int, default=256, help="of each bulk case")
    parser.add_argument("--connects", type=int, default=160, help="in each round")
    parser.add_argument("--sessions", default="1000,9000", help="idle sessions, with commas")
    parser.add_argument("--scale", type=int, default=10, help="of pgbench's tables")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:10} {what}" for name, what in CASES.items()))
        return
    for given, known in ((options.only, ("direct", "pgbouncer", "haproxy", "leasehold")), (options.cases, CASES)):
        unknown = sorted(set(filter(None, given.split(","))) - set(known))
        if unknown:
            parser.error(f"not known: {', '.join(unknown)}; one of {', '.join(known)}")

    os.makedirs(DEV, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as cleanup:
        servers = Servers()
        cleanup.callback(servers.close)
        bench = Bench(options, servers, cleanup)
        sections = bench.run()
        write(sections, bench.described())


if __name__ == "__main__":
    try:
        main()
    except (Failed, install.Missing) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
