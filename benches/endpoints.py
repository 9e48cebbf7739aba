"""Where clients connect: a direct connection, leasehold and its peers, each as a process that can be started afresh."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEV = os.path.join(ROOT, ".dev")
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))

from client import Client  # noqa: E402  (beside this file)

DATABASE = "bench"
USER, PASSWORD = "bench", "bench-password"
STARTS_WITHIN = 30  # seconds, for a proxy
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """The bench cannot go on; the text says why."""


class Endpoint:
    """Where clients of one kind connect. `password` is empty where none is asked for; `kind` is whose it is."""

    database = DATABASE

    def __init__(self, name, port, user=USER, password="", host="127.0.0.1", tls=False, kind=None):
        self.name, self.port, self.user, self.password = name, port, user, password
        self.host, self.tls, self.kind = host, tls, kind or name
        self.process = None

    def over(self, **changed):
        """The same process by another way: a Unix socket, for example."""
        other = Endpoint(self.name, self.port, self.user, self.password, self.host, self.tls, self.kind)
        other.process = self.process
        for name, value in changed.items():
            setattr(other, name, value)
        return other

    def environment(self):
        ours = {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, "PGDATABASE": DATABASE,
                "PGSSLMODE": "require" if self.tls else "disable", "PGGSSENCMODE": "disable", "PGPASSFILE": "/dev/null"}
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

    def files(self):
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

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

    def __init__(self, program, postgres, home, name="pgbouncer", tls_upstream=False):
        super().__init__(name, free_port(), kind="pgbouncer")
        self.program, self.home = program, os.path.join(home, name.replace(" ", "-"))
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
unix_socket_dir = {self.home}
auth_type = trust
auth_file = {users}
pool_mode = session
max_client_conn = 12000
default_pool_size = 11000
server_tls_sslmode = {'require' if tls_upstream else 'disable'}
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
                    os.path.join(DEV, f"bench-{self.name.replace(' ', '-')}.log"), **self.options)

    def unix(self):
        return self.over(host=self.home)


class HAProxy(Endpoint):
    """TCP mode: it knows nothing of the protocol, so its clients log in by themselves."""

    def __init__(self, program, postgres, home):
        super().__init__("haproxy", free_port(), password=PASSWORD)
        self.program = program
        self.settings = os.path.join(home, "haproxy.cfg")
        # Two descriptors each; it does not start where its limit is below that.
        most = min(12000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100) // 2)
        with open(self.settings, "w") as file:
            file.write(f"""global
    nbthread 2
    maxconn {most}
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend clients
    bind 127.0.0.1:{self.port}
    default_backend postgres
backend postgres
    server one 127.0.0.1:{postgres['port']}
""")

    def start(self):
        self.launch([self.program, "-db", "-f", self.settings], os.path.join(DEV, "bench-haproxy.log"))


class Leasehold(Endpoint):
    """The release build, with a route to a role that Vault makes."""

    def __init__(self, program, postgres, openbao, login, home, name="leasehold", tls_upstream=False, flags=()):
        super().__init__(name, free_port(), user="app", kind="leasehold")
        with open(os.path.join(login, "role_id")) as file:
            role_id = file.read().strip()
        self.directory = os.path.join(home, name.replace(" ", "-"))
        os.mkdir(self.directory)
        self.http = free_port()
        sslmode = "require" if tls_upstream else "disable"
        self.command = [
            program, "run", "--listen", f"127.0.0.1:{self.port},{self.directory}:{self.port}",
            "--http", f"127.0.0.1:{self.http}", "--admin", "off",
            "--upstream", f"postgresql://127.0.0.1:{postgres['port']}/?sslmode={sslmode}",
            "--vault-addr", openbao["addr"], "--vault-path", "database/creds/app-role",
            "--vault-auth-method", "approle", "--vault-auth-role-id", role_id,
            "--vault-auth-secret-id-file", os.path.join(login, "secret_id"), *flags]

    def start(self):
        foreign = ("LEASEHOLD_", "BAO_", "VAULT_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.launch(self.command, os.path.join(DEV, f"bench-{self.name.replace(' ', '-')}.log"), env=environment)

    def unix(self):
        return self.over(host=self.directory)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find(name, say):
    """The path of a Debian program, installed if need be; None where it can be neither found nor installed."""
    def found():
        return shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installs {name} by apt-get")
        command = f"apt-get update && apt-get install -y --no-install-recommends {name}"
        subprocess.run(["sh", "-c", command], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if found() is None:
        say(f"{name} is left out: it is not installed (Debian: apt-get install {name})")
    return found()
