#!/usr/bin/env python3
"""Starts real PostgreSQL and OpenBao servers for the tests and the demo, and takes every one of them down again.

It reads one JSON command per line and answers each with one JSON line, in order: coordinates, or
{"error": "...", "log": "the end of the server's log"}. `name` is the caller's, unique while the server exists.

  {"start": "postgres", "name": N, "version": "system"|"18"|"14"|…, "conf": {"max_connections": "20"}, "hba": [LINE, ...],
   "ssl": true | {"digest": "sha384"} | {"cert": PATH, "key": PATH, "ca": PATH}, "standby_of": N, "env": {...}}
      -> name pid host port socket_dir data_dir superuser password log [ca cert key]
         hba lines stand before "host all all all scram-sha-256"; the superuser gets in whatever they say
         a standby streams from N, which is stopped for a moment so that its data can be copied
  {"start": "openbao", "name": N, "storage": "dev"|"raft",
   "tls": false|true|{"cert": PATH, "key": PATH, "ca": PATH} (raft), "join": NAME OF A RAFT SERVER}
      -> name pid host port addr root_token log [ca] [unseal_key]       unsealed; dev is in memory; one that joins is
         a standby with the other's token and key
  {"start": "proxy", "name": N, "to": NAME OF AN OPENBAO}               -> name pid host port addr log
         OpenBao's own proxy, which keeps tokens and leases that passed
  {"start": "pgbouncer", "name": N, "to": NAME OF A POSTGRES, "settings": {"max_client_conn": "20"}}
      -> name pid host port log         logs clients in by the passwords that the PostgreSQL has, with SCRAM
  {"stop": N, "signal": "TERM"|"KILL"|"fast"|"immediate"}               -> {}   gone when answered; its data stays
  {"restart": N, "unseal": true|false}                                  -> coordinates; same port, same data
  {"pause": N} / {"cont": N}                                            -> {}   SIGSTOP / SIGCONT, children too
  {"processes": N, "most": COUNT|null}                                  -> {}   of a PostgreSQL's user; 1: it cannot fork
  {"remove": N}                                                         -> {}   stopped, and its data deleted
  {"dir": true}                                                         -> dir  a directory any server may read

All servers listen on 127.0.0.1 (PostgreSQL on a Unix socket too), on ports below the range that the kernel hands out, so
that a server that is down for a while finds its port free. When stdin ends, or on SIGTERM, all are stopped by their
pids and their data is deleted; should this program be killed, the kernel stops them. PostgreSQL refuses to run as
root: when root, it runs as `postgres` or `nobody`, with its data where that user can get at it.

    python3 tests/bench/servers.py            (stdlib only)
"""

import contextlib
import ctypes
import fcntl
import glob
import json
import os
import pwd
import random
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import install  # noqa: E402  (beside this file)

SUPERUSER = "postgres"
PASSWORD = "superuser-password"
ROOT_TOKEN = "root-token"
STARTS_WITHIN = 30  # seconds, on a busy machine; the usual is under one
STOPS_WITHIN = 10
PORTS = range(20000, 32000)


class Failed(Exception):
    """A command that could not be done. `log` is the path of the server's log, if there is one."""

    def __init__(self, text, log=None):
        super().__init__(text)
        self.log = log


class Run:
    """The directory of this run, and the user that PostgreSQL runs as."""

    def __init__(self):
        self.user = _unprivileged_user()
        self.dir = self._make()
        self.lock = open(os.path.join(self.dir, "lock"), "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def _make(self):
        home = os.path.join(install.DEV, "run")
        os.makedirs(home, exist_ok=True)
        _sweep(glob.glob(os.path.join(home, "*")) + glob.glob(os.path.join(tempfile.gettempdir(), "leasehold-*")))
        # A Unix socket's path holds 107 bytes, and a clone may sit where the unprivileged user cannot go.
        if len(home) > 60 or not self.can_reach(home):
            home = tempfile.gettempdir()
        made = tempfile.mkdtemp(dir=home, prefix="leasehold-")
        os.chmod(made, 0o711)
        return made

    def can_reach(self, path):
        return subprocess.run(["test", "-x", path], **self.as_user()).returncode == 0

    def as_user(self):
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def give(self, path):
        """Hands a tree to the user that PostgreSQL runs as."""
        if self.user is not None:
            subprocess.run(["chown", "-R", f"{self.user.pw_uid}:{self.user.pw_gid}", path], check=True)

    def delete(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Server:
    """One server process: its command line, its directory, its log."""

    def __init__(self, run, name):
        self.run = run
        self.name = name
        self.dir = os.path.join(run.dir, name)
        self.log = os.path.join(self.dir, "log")
        self.process = None
        os.mkdir(self.dir, 0o711)

    def launch(self, command, dies_by, **options):
        """Starts it so that the kernel sends it `dies_by` should this program die without a word."""
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir, start_new_session=True,
                preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, dies_by), **options)

    def wait_until(self, ready):
        deadline = time.monotonic() + STARTS_WITHIN
        while not ready():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} exited with {self.process.returncode} at its start", self.log)
            if time.monotonic() > deadline:
                self.stop("KILL")
                raise Failed(f"{self.name} was not ready within {STARTS_WITHIN} s", self.log)
            time.sleep(0.01)

    def stop(self, how):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(self.SIGNALS[how])
        try:
            self.process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.send_signal(self.SIGNALS["immediate"])
            try:
                self.process.wait(STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def freeze(self, number):
        """Sends a signal to the server and the processes it made."""
        for pid in [self.process.pid, *_children(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class Postgres(Server):
    SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

    def __init__(self, run, name, version="system", conf=None, hba=(), ssl=None, standby_of=None, env=None):
        super().__init__(run, name)
        self.env = env or {}
        self.bin = self._programs(version)
        self.data = os.path.join(self.dir, "data")
        self.sockets = os.path.join(run.dir, "s")
        os.makedirs(self.sockets, mode=0o755, exist_ok=True)
        if standby_of is None:
            shutil.copytree(self._template(version), self.data, symlinks=True)
        else:
            conf = {**(conf or {}), **self._clone(standby_of)}
        os.chmod(self.data, 0o700)
        self.tls = _certificates(self.dir, ssl) if ssl else {}
        settings = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": self.sockets, "max_connections": "800",
            "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "shared_buffers": "64MB",
            "log_line_prefix": "%m [%p] %q%u@%d %a ", "logging_collector": "off", "log_destination": "stderr",
            "password_encryption": "scram-sha-256", "jit": "off", "autovacuum_naptime": "1h",
        }
        if self.tls:
            # The server's key must belong to the server's user.
            for end in ("cert", "key"):
                shutil.copyfile(self.tls[end], os.path.join(self.data, f"server.{end}"))
                os.chmod(os.path.join(self.data, f"server.{end}"), 0o600)
            settings |= {"ssl": "on", "ssl_cert_file": "server.cert", "ssl_key_file": "server.key"}
        settings |= conf or {}
        with open(os.path.join(self.data, "postgresql.conf"), "a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in settings.items())
        with open(os.path.join(self.data, "pg_hba.conf"), "w") as file:
            lines = [f"local all,replication {SUPERUSER} scram-sha-256",
                     f"host all,replication {SUPERUSER} all scram-sha-256", *hba,
                     "local all,replication all scram-sha-256", "host all,replication all all scram-sha-256"]
            file.writelines(f"{line}\n" for line in lines)
        run.give(self.data)
        run.give(self.sockets)
        self.port = _free_port()

    def start(self):
        self.launch([os.path.join(self.bin, "postgres"), "-D", self.data, "-p", str(self.port)],
                    dies_by=signal.SIGQUIT, umask=0o077, env={**os.environ, **self.env}, **self.run.as_user())
        self.wait_until(self._ready)

    def _ready(self):
        """The last line of postmaster.pid says `ready` once logins are accepted."""
        try:
            with open(os.path.join(self.data, "postmaster.pid")) as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def coordinates(self):
        return {"name": self.name, "pid": self.process.pid, "host": "127.0.0.1", "port": self.port,
                "socket_dir": self.sockets, "data_dir": self.data, "superuser": SUPERUSER, "password": PASSWORD,
                "log": self.log, **self.tls}

    def _programs(self, version):
        if version != "system":
            install.ensure(f"postgres-{version}")
        found = install.postgres(version)
        if found is None or not os.path.exists(os.path.join(found, "postgres")):
            raise Failed(f"no PostgreSQL of version {version}: run tests/bench/install.py")
        if self.run.can_reach(found) and self.run.can_reach(os.path.join(found, "postgres")):
            return found
        copy = os.path.join(self.run.dir, f"postgres-{version}")
        if not os.path.isdir(copy):
            shutil.copytree(os.path.dirname(found), copy, symlinks=True)
        return os.path.join(copy, "bin")

    def _clone(self, primary):
        """Copies the data of a primary, cold, since not every bundle has pg_basebackup; the settings of a standby."""
        primary.stop("fast")
        try:
            shutil.copytree(primary.data, self.data, symlinks=True)
        finally:
            primary.start()
        open(os.path.join(self.data, "standby.signal"), "w").close()
        where = f"host=127.0.0.1 port={primary.port} user={SUPERUSER} password={PASSWORD}"
        return {"primary_conninfo": where, "wal_retrieve_retry_interval": "100ms"}

    def _template(self, version):
        """A fresh cluster of this version, made by initdb once and kept under .dev/."""
        number = subprocess.run([os.path.join(self.bin, "postgres"), "--version"], check=True, capture_output=True,
                                text=True).stdout.split()[2]
        template = os.path.join(install.DEV, f"template-{number}")
        with open(f"{template}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.isdir(template):
                self._initdb(template)
        return template

    def _initdb(self, template):
        with tempfile.TemporaryDirectory(dir=self.run.dir) as work:
            word = os.path.join(work, "password")
            with open(word, "w") as file:
                file.write(PASSWORD)
            self.run.give(work)
            fresh = os.path.join(work, "data")
            done = subprocess.run(
                [os.path.join(self.bin, "initdb"), "-D", fresh, "-U", SUPERUSER, "--pwfile", word, "--no-sync",
                 "--auth=scram-sha-256", "--locale=C.UTF-8", "--encoding=UTF8"],
                capture_output=True, text=True, cwd=work, **self.run.as_user())
            if done.returncode != 0:
                raise Failed(f"initdb: {done.stdout}{done.stderr}")
            whole = tempfile.mkdtemp(dir=install.DEV, prefix="initdb-")
            shutil.copytree(fresh, whole, symlinks=True, dirs_exist_ok=True)
            os.rename(whole, template)


class OpenBao(Server):
    SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL, "fast": signal.SIGTERM, "immediate": signal.SIGKILL}

    def __init__(self, run, name, storage="dev", tls=False, join=None):
        super().__init__(run, name)
        if storage not in ("dev", "raft"):
            raise Failed(f"storage is dev or raft, not {storage}")
        self.leader = join
        self.storage = storage
        self.port = _free_port()
        self.scheme = "https" if tls else "http"
        self.tls = {}
        self.token, self.unseal_key = ROOT_TOKEN, None
        if storage == "raft":
            self._configure(tls)
        elif tls:
            certificates = os.path.join(self.dir, "tls")
            os.mkdir(certificates)
            self.tls = {"ca": os.path.join(certificates, "vault-ca.pem")}

    def start(self, unseal=True):
        bao = [install.bao(), "server"]
        if self.storage == "dev":
            bao += ["-dev", f"-dev-root-token-id={ROOT_TOKEN}", "-dev-no-store-token",
                    f"-dev-listen-address=127.0.0.1:{self.port}"]
            if self.tls:
                bao += ["-dev-tls", f"-dev-tls-cert-dir={os.path.dirname(self.tls['ca'])}"]
        else:
            bao += [f"-config={self.dir}/config.json"]
        # What the caller's shell says of Vault is not for this server.
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": self.dir}
        self.launch(bao, dies_by=signal.SIGKILL, env=environment)
        # 501: not initialised; 503: sealed; 429: not yet the leader.
        answers = {200} if self.storage == "dev" else {200, 429, 501, 503}
        self.wait_until(lambda: self._call("GET", "sys/health")[0] in answers)
        if self.storage == "raft":
            if self.unseal_key is None:
                self._initialise()
            if unseal:
                self._call("POST", "sys/unseal", {"key": self.unseal_key})
                serves = {200} if self.leader is None else {200, 429}
                self.wait_until(lambda: self._call("GET", "sys/health")[0] in serves)

    def coordinates(self):
        found = {"name": self.name, "pid": self.process.pid, "host": "127.0.0.1", "port": self.port,
                 "addr": f"{self.scheme}://127.0.0.1:{self.port}", "root_token": self.token, "log": self.log}
        if "ca" in self.tls:
            found["ca"] = self.tls["ca"]
        if self.unseal_key is not None:
            found["unseal_key"] = self.unseal_key
        return found

    def _configure(self, tls):
        self.tls = _certificates(self.dir, tls) if tls else {}
        address = f"127.0.0.1:{self.port}"
        listener = {"address": address, "cluster_address": f"127.0.0.1:{_free_port()}"}
        listener |= {"tls_cert_file": self.tls["cert"], "tls_key_file": self.tls["key"]} if tls else {"tls_disable": True}
        os.mkdir(os.path.join(self.dir, "raft"))
        config = {
            "storage": {"raft": {"path": os.path.join(self.dir, "raft"), "node_id": self.name, "performance_multiplier": 1}},
            "listener": [{"tcp": listener}],
            "api_addr": f"{self.scheme}://{address}",
            "cluster_addr": f"https://{listener['cluster_address']}",
            "ui": False,
        }
        with open(os.path.join(self.dir, "config.json"), "w") as file:
            json.dump(config, file)

    def _initialise(self):
        if self.leader is not None:
            leader = self.leader.coordinates()
            status, _ = self._call("POST", "sys/storage/raft/join", {"leader_api_addr": leader["addr"]})
            if status != 200:
                raise Failed(f"sys/storage/raft/join answered {status}", self.log)
            self.token, self.unseal_key = leader["root_token"], leader["unseal_key"]
            return
        status, reply = self._call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        if status != 200:
            raise Failed(f"sys/init answered {status}", self.log)
        self.token, self.unseal_key = reply["root_token"], reply["keys_base64"][0]

    def _call(self, method, path, body=None):
        request = urllib.request.Request(
            f"{self.scheme}://127.0.0.1:{self.port}/v1/{path}", method=method,
            data=None if body is None else json.dumps(body).encode())
        handlers = [urllib.request.ProxyHandler({})]
        if self.scheme == "https":
            try:
                handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.tls["ca"])))
            except OSError:
                # The server writes it at its start: it is not there yet, or not whole (ssl.SSLError).
                return 0, {}
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=5) as reply:
                return reply.status, json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            error.read()
            return error.code, {}
        except (OSError, ValueError):
            return 0, {}


class Proxy(Server):
    SIGNALS = OpenBao.SIGNALS

    def __init__(self, run, name, to):
        super().__init__(run, name)
        self.port = _free_port()
        config = {
            "vault": {"address": to.coordinates()["addr"]},
            "cache": {},
            "api_proxy": {"use_auto_auth_token": False},
            "listener": [{"tcp": {"address": f"127.0.0.1:{self.port}", "tls_disable": True}}],
        }
        with open(os.path.join(self.dir, "config.json"), "w") as file:
            json.dump(config, file)

    def start(self):
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": self.dir}
        self.launch([install.bao(), "proxy", f"-config={self.dir}/config.json"], dies_by=signal.SIGKILL, env=environment)
        self.wait_until(self._ready)

    def _ready(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def coordinates(self):
        return {"name": self.name, "pid": self.process.pid, "host": "127.0.0.1", "port": self.port,
                "addr": f"http://127.0.0.1:{self.port}", "log": self.log}


class PgBouncer(Server):
    SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL, "fast": signal.SIGTERM, "immediate": signal.SIGKILL}

    def __init__(self, run, name, to, settings=None):
        install.ensure("pgbouncer")
        super().__init__(run, name)
        self.port = _free_port()
        users = os.path.join(self.dir, "users")
        with open(users, "w") as file:
            file.write(f'"{SUPERUSER}" "{PASSWORD}"\n')
        options = {
            "listen_addr": "127.0.0.1", "listen_port": self.port, "unix_socket_dir": "", "pool_mode": "session",
            "auth_type": "scram-sha-256", "auth_file": users, "auth_user": SUPERUSER,
            "auth_query": "SELECT usename, passwd FROM pg_shadow WHERE usename=$1", "server_login_retry": "1",
        }
        options |= settings or {}
        self.config = os.path.join(self.dir, "pgbouncer.ini")
        with open(self.config, "w") as file:
            file.write(f"[databases]\n* = host=127.0.0.1 port={to.port}\n[pgbouncer]\n")
            file.writelines(f"{key} = {value}\n" for key, value in options.items())
        run.give(self.dir)

    def start(self):
        self.launch([install.pgbouncer(), self.config], dies_by=signal.SIGKILL, **self.run.as_user())
        self.wait_until(self._ready)

    def _ready(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def coordinates(self):
        return {"name": self.name, "pid": self.process.pid, "host": "127.0.0.1", "port": self.port, "log": self.log}


class Supervisor:
    """The commands."""

    KINDS = {"postgres": Postgres, "openbao": OpenBao, "proxy": Proxy, "pgbouncer": PgBouncer}

    def __init__(self):
        self.run = Run()
        self.servers = {}

    def obey(self, command):
        verbs = [verb for verb in ("start", "stop", "restart", "pause", "cont", "processes", "remove", "dir") if verb in command]
        if len(verbs) != 1:
            raise Failed(f"not a command: {command}")
        subject = command.pop(verbs[0])
        return getattr(self, verbs[0])(subject, **command)

    def start(self, kind, name, **options):
        if kind not in self.KINDS:
            raise Failed(f"cannot start a {kind}")
        if name in self.servers or os.path.exists(os.path.join(self.run.dir, name)):
            raise Failed(f"there is a {name} already")
        for other in ("standby_of", "join", "to"):
            if other in options:
                options[other] = self._named(options[other])
        server = self.servers[name] = self.KINDS[kind](self.run, name, **options)
        try:
            server.start()
        except BaseException:
            server.stop("KILL")
            del self.servers[name]
            raise
        return server.coordinates()

    def stop(self, name, signal="fast"):
        self._named(name).stop(signal)
        return {}

    def restart(self, name, **options):
        server = self._named(name)
        server.stop("fast")
        server.start(**options)
        return server.coordinates()

    def processes(self, name, most):
        # The soft limit alone, as the server's user, who may raise it again.
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        soft = most or ("unlimited" if hard == resource.RLIM_INFINITY else hard)
        subprocess.run(["prlimit", f"--pid={self._named(name).process.pid}", f"--nproc={soft}:"], check=True, cwd="/",
                       **self.run.as_user())
        return {}

    def pause(self, name):
        self._named(name).freeze(signal.SIGSTOP)
        return {}

    def cont(self, name):
        self._named(name).freeze(signal.SIGCONT)
        return {}

    def remove(self, name):
        server = self._named(name)
        server.stop("immediate")
        shutil.rmtree(server.dir, ignore_errors=True)
        del self.servers[name]
        return {}

    def dir(self, _):
        return {"dir": self.run.dir}

    def close(self):
        for server in self.servers.values():
            server.freeze(signal.SIGCONT)
            server.stop("immediate")
        self.run.delete()

    def _named(self, name):
        if name not in self.servers:
            raise Failed(f"there is no {name}")
        return self.servers[name]


def _unprivileged_user():
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Failed("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _sweep(directories):
    """Deletes what runs that were killed left behind: nobody holds their lock, and they are not just being made."""
    for directory in directories:
        with contextlib.suppress(OSError):
            if time.time() - os.path.getmtime(directory) < 60:
                continue
            with open(os.path.join(directory, "lock"), "r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)


def _free_port():
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise Failed("no free port")


def _children(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    return []


def _certificates(directory, wanted):
    """Paths of `ca`, `cert` and `key`: those handed in, or a CA and a server certificate for localhost, by openssl."""
    if isinstance(wanted, dict) and "cert" in wanted:
        return {end: wanted[end] for end in ("ca", "cert", "key") if end in wanted}
    if shutil.which("openssl") is None:
        raise Failed("the openssl command is missing; hand in certificates as ssl.cert and ssl.key")
    digest = wanted.get("digest", "sha256") if isinstance(wanted, dict) else "sha256"
    path = {end: os.path.join(directory, f"{end}.pem") for end in ("ca", "ca-key", "cert", "key", "csr", "ext")}
    with open(path["ext"], "w") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nbasicConstraints=CA:FALSE\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", f"-{digest}"]
    for command in (
        ["req", "-x509", *new_key, "-keyout", path["ca-key"], "-out", path["ca"], "-days", "2", "-subj", "/CN=bench CA"],
        ["req", *new_key, "-keyout", path["key"], "-out", path["csr"], "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", path["csr"], "-CA", path["ca"], "-CAkey", path["ca-key"], "-CAcreateserial", "-days", "2",
         f"-{digest}", "-extfile", path["ext"], "-out", path["cert"]],
    ):
        done = subprocess.run(["openssl", *command], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"openssl {command[0]}: {done.stderr}")
    return {end: path[end] for end in ("ca", "cert", "key")}


def _tail(path, lines=30):
    try:
        with open(path, errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except OSError:
        return ""


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches the caller; it closes our stdin
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    install.ensure("postgres", "openbao")
    supervisor = Supervisor()
    try:
        for line in sys.stdin:
            try:
                reply = supervisor.obey(json.loads(line))
            except EXPECTED as error:
                reply = {"error": f"{type(error).__name__}: {error}", "log": _tail(getattr(error, "log", None) or "")}
            print(json.dumps(reply), flush=True)
    except BrokenPipeError:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        supervisor.close()


# What a command can fail with: the server's fault, the machine's, or a wrong command.
EXPECTED = (Failed, install.Missing, subprocess.CalledProcessError, OSError, KeyError, TypeError, ValueError, shutil.Error)
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    try:
        main()
    except (Failed, install.Missing, subprocess.CalledProcessError) as error:
        sys.exit(f"servers: {error}")
