#!/usr/bin/env python3
"""`make demo`: leasehold between psql, a real PostgreSQL and a real OpenBao, in a few steps that check themselves.

It needs Rust and Python 3; what else is missing is installed under .dev/. It ends by itself, exit code 0, nothing left
running; a step that does not hold ends it with the reason and exit code 1. With KEEP=1 all of it stays up, and it says
what to connect to and how to stop it.
"""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import install  # noqa: E402  (in tests/bench)

DATABASE = "myapp"
SOON = 20  # seconds for what should happen at once


class Broken(Exception):
    """A step does not hold; the text says why."""


class Servers:
    """tests/bench/servers.py, and what it has started."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "tests", "bench", "servers.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            # Not the caller's: what is kept up would hold it open, and `make demo KEEP=1 | tee log` would never end.
            stderr=subprocess.PIPE, text=True, start_new_session=True)

    def do(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Broken(f"tests/bench/servers.py has ended\n{self.process.stderr.read()}")
        reply = json.loads(line)
        if "error" in reply:
            raise Broken(f"{reply['error']}\n{reply['log']}")
        return reply

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Psql:
    """A psql that stays open. It has no password, and nowhere to find one."""

    def __init__(self, url):
        self.process = subprocess.Popen([install.client("psql"), "-wXAtq", "-v", "ON_ERROR_STOP=1", url],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=no_password())

    def ask(self, sql):
        """The first line of the answer."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{sql};\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise Broken("the psql session has ended; what it said is above")
        return answer

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(SOON)


class Demo:
    def __init__(self):
        self.undo = contextlib.ExitStack()
        self.leasehold = None

    def show(self):
        self.start_servers()
        self.build()
        self.start_leasehold()
        started = time.monotonic()
        self.connect_without_a_password()
        self.rotate_under_an_open_session()
        self.show_status()
        return time.monotonic() - started

    def start_servers(self, postgres=None, vault=None, **settings):
        """`postgres`, `vault`: words for tests/bench/servers.py; `settings`: variables of deploy/vault/setup.sh."""
        step("A PostgreSQL and an OpenBao, set up as a platform team would")
        install.ensure("postgres", "openbao")
        self.servers = Servers()
        self.undo.callback(self.servers.close)
        self.dir = self.servers.do(dir=True)["dir"]
        self.postgres = self.servers.do(start="postgres", name="postgres", **(postgres or {}))
        self.vault = self.servers.do(start="openbao", name="openbao", **(vault or {}))
        self.superuser = {"PGHOST": self.postgres["host"], "PGPORT": str(self.postgres["port"]),
                          "PGUSER": self.postgres["superuser"], "PGPASSWORD": self.postgres["password"]}
        environment = {"BAO": install.bao(), "BAO_ADDR": self.vault["addr"], "BAO_TOKEN": self.vault["root_token"],
                       "APP_DATABASE": DATABASE, "HOME": self.dir, "PATH": path_with_psql(), **self.superuser, **settings}
        self.login = os.path.join(self.dir, "login")
        run([os.path.join(ROOT, "deploy", "vault", "setup.sh"), self.login], env=environment)
        version = self.as_superuser("SHOW server_version", database="postgres").split()[0]
        say(f"PostgreSQL {version} at {self.postgres['host']}:{self.postgres['port']}, "
            f"OpenBao {install.OPENBAO} at {self.vault['addr']}")
        say("deploy/vault/setup.sh made the roles app-role, readonly-role, admin-role, a policy that may only read their")
        say("credentials and renew their leases, and an AppRole login for leasehold")

    def build(self):
        step("leasehold, built")
        run(["cargo", "build", "--release", "--locked", "--bin", "leasehold"], cwd=ROOT)
        metadata = json.loads(run(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=ROOT, quiet=True))
        self.binary = os.path.join(metadata["target_directory"], "release", "leasehold")

    def upstream(self):
        return f"postgresql://{self.postgres['host']}:{self.postgres['port']}/{DATABASE}?sslmode=disable"

    def start_leasehold(self, *flags):
        self.port, self.http, self.admin = (free_port(wish) for wish in (6432, 9090, 9091))
        self.admin_addr = f"127.0.0.1:{self.admin}"
        with open(os.path.join(self.login, "role_id")) as file:
            role_id = file.read().strip()
        command = [
            self.binary, "run",
            "--listen", f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self.http}", "--admin", self.admin_addr,
            "--upstream", self.upstream(),
            "--vault-addr", self.vault["addr"], "--vault-path", "database/creds/app-role",
            "--vault-auth-method", "approle", "--vault-auth-role-id", role_id,
            "--vault-auth-secret-id-file", os.path.join(self.login, "secret_id"), *flags,
        ]
        say(f"$ leasehold {command[1]} \\")
        for line in flag_lines(command[2:]):
            say(f"      {line}")
        self.log = os.path.join(self.dir, "leasehold.log")
        with open(self.log, "w") as log:
            # Nothing of the caller's shell, such as VAULT_TOKEN, is for this process.
            self.leasehold = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                              env={"PATH": os.environ["PATH"], "HOME": self.dir}, start_new_session=True)
        self.undo.callback(self.kill_leasehold)
        self.url = f"postgresql://app@127.0.0.1:{self.port}/{DATABASE}"
        self.command("wait", "--max", "30s")
        say(f"it runs, and DATABASE_URL is {self.url}")

    def connect_without_a_password(self):
        step("psql with no password")
        told = run([install.client("psql"), "-wXAt", "-F", " | ", "-c", "SELECT session_user, current_user", self.url],
                   env=no_password(), quiet=True).strip()
        say(f"$ psql {self.url} -c 'SELECT session_user, current_user'")
        say(f"  {told}")
        session_user, current_user = told.split(" | ")
        expect(session_user.startswith("v-approle-app-role-"), f"{session_user} is not a role that OpenBao made")
        expect(current_user == "app_owner", f"it acts as {current_user}, not as app_owner")
        say("OpenBao made that role for leasehold; what it creates belongs to app_owner")

    def rotate_under_an_open_session(self):
        step("A rotation while one session stays open")
        old = Psql(self.url)
        try:
            before = old.ask("SELECT session_user")
            say(f"the open session is    {before}")
            say("$ leasehold rotate")
            self.command("rotate")
            still = old.ask("SELECT session_user")
            say(f"the open session is    {still}, still")
            expect(still == before, f"the open session changed from {before} to {still}")
            new = Psql(self.url)
            try:
                after = new.ask("SELECT session_user")
            finally:
                new.close()
            say(f"a new session is       {after}")
            expect(after != before, "a new session is on the old role")
            expect(set(self.dynamic_roles()) == {before, after}, f"pg_roles has {self.dynamic_roles()}")
        finally:
            old.close()
        say("the old session has ended; its role goes with it, by its own token's revocation: the policy lets nobody")
        say("revoke a lease, but a token may always revoke itself, and its lease goes along")
        wait_for(lambda: self.dynamic_roles() == [after], lambda: f"pg_roles still has {self.dynamic_roles()}")
        say(f"pg_roles now has only  {after}")
        def by_token():
            return [line for line in self.metrics() if line.startswith("leasehold_revocations_total{")
                    and 'outcome="token"' in line and float(line.rsplit(" ", 1)[1]) >= 1]
        # leasehold looks the lease up before it counts.
        wait_for(by_token, lambda: "no revocation by token was counted")

    def show_status(self):
        step("What leasehold says of itself")
        say("$ leasehold status")
        told = self.command("status")
        expect("app-role" in told, "leasehold status does not show the route app-role")
        for line in told.splitlines():
            say(f"  {line}")

    def stop(self):
        step("The end")
        self.leasehold.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.leasehold.wait(30)
        expect(self.leasehold.returncode == 0, f"leasehold ended with {self.leasehold.returncode}")
        wait_for(lambda: not self.dynamic_roles(), lambda: f"pg_roles still has {self.dynamic_roles()}")
        say("leasehold stopped in order, and gave its last lease back: no role of OpenBao's is left in pg_roles")

    def close(self):
        self.undo.close()

    def kill_leasehold(self):
        if self.leasehold.poll() is None:
            self.leasehold.terminate()
            try:
                self.leasehold.wait(30)
            except subprocess.TimeoutExpired:
                self.leasehold.kill()
                self.leasehold.wait()

    def command(self, *arguments):
        """A leasehold command line against the running process."""
        if self.leasehold.poll() is not None:
            raise Broken(f"leasehold has ended with {self.leasehold.returncode}")
        return run([self.binary, *arguments, "--admin", self.admin_addr], quiet=True)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=SOON) as reply:
            return reply.read().decode().splitlines()

    def dynamic_roles(self):
        return self.as_superuser("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY oid").split()

    def as_superuser(self, sql, database=DATABASE):
        return run([install.client("psql"), "-XAt", "-d", database, "-c", sql],
                   env={**os.environ, **self.superuser}, quiet=True)

    def log_tail(self):
        with contextlib.suppress(OSError, AttributeError), open(self.log, errors="replace") as file:
            return "".join(file.readlines()[-20:])
        return ""


def run(command, quiet=False, **options):
    """Runs a command to its end; its stdout where it is `quiet`."""
    out = subprocess.PIPE if quiet else None
    done = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, text=True, **options)
    if done.returncode != 0:
        said = f"\n{done.stdout}{done.stderr}" if quiet else ""
        raise Broken(f"`{' '.join(command[:2])}` ended with {done.returncode}{said}")
    return done.stdout


def wait_for(holds, why_not):
    deadline = time.monotonic() + SOON
    while not holds():
        if time.monotonic() > deadline:
            raise Broken(f"not within {SOON} s: {why_not()}")
        time.sleep(0.05)


def expect(holds, why_not):
    if not holds:
        raise Broken(why_not)


def no_password():
    """An environment in which psql cannot find a password."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return {**kept, "PGPASSFILE": os.path.join(install.DEV, "no-such-file"), "PGCONNECT_TIMEOUT": str(SOON)}


def path_with_psql():
    return os.pathsep.join([os.path.dirname(install.client("psql")), os.environ.get("PATH", "")])


def free_port(wish):
    """The port leasehold has by default, or another where that one is taken."""
    for port in (wish, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise Broken("no port is free")


def step(title):
    print(f"\n== {title}", flush=True)


def flag_lines(flags):
    """Flags with their values, a pair a line, as a shell takes them."""
    pairs = [" ".join(shlex.quote(word) for word in flags[at:at + 2]) for at in range(0, len(flags), 2)]
    return [f"{pair} \\" for pair in pairs[:-1]] + pairs[-1:]


def say(line):
    print(f"   {line}", flush=True)


def show(keep, kept):
    """The whole demo. With `keep`, calls `kept` when all has been shown, then waits for a signal to end."""
    def asked_to_end(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, asked_to_end)
    demo = Demo()
    try:
        took = demo.show()
        if not keep:
            demo.stop()
            print(f"\nShown in {took:.0f} s: a client with no password on a leased credential; a rotation that no open session")
            print("noticed; a role that went with its last session; nothing left behind. Nothing is left running.")
            return 0
        print(f"\nIt stays up.    DATABASE_URL={demo.url}")
        print(f"                {demo.binary} status --admin {demo.admin_addr}")
        print(f"                page: http://{demo.admin_addr}/")
        print(f"                log: {demo.log}")
        print(f"To stop it all: kill {os.getpid()}", flush=True)
        kept()
        while True:
            signal.pause()
    except (Broken, install.Missing, subprocess.SubprocessError, OSError) as error:
        print(f"\nThe demo does not hold: {error}", file=sys.stderr)
        print(demo.log_tail(), file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        demo.close()


def main():
    if os.environ.get("KEEP", "") in ("", "0"):
        return show(keep=False, kept=None)
    # A process of its own shows and keeps; this one ends when all has been shown.
    done_reads, done_writes = os.pipe()
    keeper = os.fork()
    if keeper:
        os.close(done_writes)
        try:
            if os.read(done_reads, 1):
                return 0
        except KeyboardInterrupt:
            os.kill(keeper, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
    os.close(done_reads)
    os.setsid()

    def kept():
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os.write(done_writes, b"0")
        os.close(done_writes)
    return show(keep=True, kept=kept)


if __name__ == "__main__":
    sys.exit(main())
