"""The servers of one row of the matrix: a PostgreSQL of some kind, an OpenBao, leasehold in between; and what an app finds there."""

import contextlib
import json
import os
import re
import sys
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "bench"), os.path.join(ROOT, "tests", "demo")]
import demo  # noqa: E402  (in tests/demo)

PASSWORD = "direct-password"

# Who connects directly is what an app was before leasehold: a role of its own, with a password and a setting.
PREPARE = f"""
    CREATE ROLE app LOGIN PASSWORD '{PASSWORD}' IN ROLE app_owner;
    ALTER ROLE app SET role = 'app_owner';
    ALTER ROLE app SET lock_timeout = '5s';
    CREATE FUNCTION identity() RETURNS text LANGUAGE sql AS $$
        SELECT json_build_object('session_user', session_user, 'current_user', current_user,
            'client_addr', host(inet_client_addr()), 'schemas', current_schemas(true),
            'role', current_setting('role'), 'lock_timeout', current_setting('lock_timeout'),
            'statement_timeout', current_setting('statement_timeout'), 'datestyle', current_setting('datestyle'),
            'timezone', current_setting('timezone'), 'client_encoding', current_setting('client_encoding'),
            'extra_float_digits', current_setting('extra_float_digits'),
            'application_name', current_setting('application_name'))::text $$;
    CREATE FUNCTION end_session() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS
        'SELECT pg_terminate_backend(pg_backend_pid())';
"""


class Stage(demo.Demo):
    """`kind` is one of KINDS. It is quiet: what the demo says goes to the standard error."""

    def __init__(self, binary, kind, flags=(), **settings):
        super().__init__()
        self.binary, self.kind = os.path.abspath(binary), kind
        self.flags, self.settings, self.prepare = flags, settings, PREPARE
        self.more = {}  # variables that clients get beside those of their own
        self.url_words = ""  # behind the database in their URL
        self.check = lambda: None  # that the servers are of their kind
        self.faults = lambda: []  # what they saw that should not be, of the client that has just run through leasehold

    def __enter__(self):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                KINDS[self.kind](self)
                self.as_superuser(self.prepare)
                self.start_leasehold(*self.flags)
                self.check()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self, **postgres):
        self.start_servers(postgres=postgres, **self.settings)
        # Where a client without leasehold connects, and leasehold itself.
        self.direct_port, self.hosts, self.words = self.postgres["port"], None, "sslmode=disable"

    def upstream(self):
        hosts = self.hosts or f"127.0.0.1:{self.direct_port}"
        return f"postgresql://{hosts}/{demo.DATABASE}?{self.words}"

    def version(self):
        number = re.match(r"[\d.]+", self.as_superuser("SHOW server_version"))[0]
        return f"{number}, {ADDED[self.kind]}" if self.kind in ADDED else number

    def count(self, metric, label=""):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.metrics()
                   if line.startswith(f"leasehold_{metric}{{") and label in line)

    def while_connected(self, act):
        session = demo.Psql(self.url)
        try:
            session.ask("SELECT 1")
            act()
        finally:
            session.close()

    def write_to_vault(self, path, **body):
        request = urllib.request.Request(f"{self.vault['addr']}/v1/{path}", method="POST", data=json.dumps(body).encode(),
                                         headers={"X-Vault-Token": self.vault["root_token"]})
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()

    def environment(self, through):
        """What a client is told: where, who, and directly its password. Nothing of the caller's PG* or Vault's."""
        port = self.port if through else self.direct_port
        secret = "" if through else f":{PASSWORD}"
        ours = {"CLIENT_URL": f"postgresql://app{secret}@127.0.0.1:{port}/{demo.DATABASE}{self.url_words}", "CLIENT_HOST": "127.0.0.1",
                "CLIENT_PORT": str(port), "CLIENT_USER": "app", "CLIENT_DATABASE": demo.DATABASE}
        if not through:
            ours["CLIENT_PASSWORD"] = PASSWORD
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        return {**kept, **ours, **self.more, "PGPASSFILE": "/dev/null"}


def of_version(version, **words):
    return lambda stage: stage.start(version=version, **words)


def tls(version):
    """TLS between leasehold and PostgreSQL, which the client has directly too where it asks for it."""
    def start(stage):
        stage.start(version=version, ssl=True)
        stage.words = f"sslmode=verify-full&sslrootcert={stage.postgres['ca']}"
        # leasehold has no session of its own that stays: one of a client's.
        tls = "SELECT count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename LIKE 'v-%' AND ssl"
        stage.check = lambda: stage.while_connected(lambda: demo.expect(stage.as_superuser(tls).strip() == "t", "no session has TLS"))
    return start


def client_tls(mode):
    """TLS between the client and leasehold, in libpq's words. Only a client that is to verify the certificate has its CA; Node.js
    by a variable of its own. No session may be without: directly it is refused, and of leasehold's the audit file tells."""
    def start(stage):
        stage.start(version="18", ssl=True, hba=["hostnossl all app 127.0.0.1/32 reject"])
        audit = Audit(os.path.join(stage.dir, "audit"))
        stage.flags = ("--tls-cert-file", stage.postgres["cert"], "--tls-key-file", stage.postgres["key"], "--audit-file", audit.path)
        stage.more, stage.url_words = {"PGSSLMODE": mode}, f"?sslmode={mode}"
        if mode.startswith("verify"):
            stage.more |= {"PGSSLROOTCERT": stage.postgres["ca"], "NODE_EXTRA_CA_CERTS": stage.postgres["ca"]}
        stage.check, stage.faults = audit.opened, audit.faults
    return start


class Audit:
    """leasehold's audit file, read piece by piece."""

    def __init__(self, path):
        self.path, self.read = path, 0

    def opened(self):
        """The sessions that have begun since the last call."""
        with open(self.path) as file:
            lines = [json.loads(line) for line in file]
        new, self.read = lines[self.read:], len(lines)
        return [line for line in new if line["message"] == "session opened"]

    def faults(self):
        opened = self.opened()
        plain = sum(1 for session in opened if not session["client.tls"].startswith("TLS"))
        return [f"{plain} of {len(opened)} sessions had no TLS"] if plain or not opened else []


def md5(version):
    def start(stage):
        stage.start(version=version, conf={"password_encryption": "md5"}, hba=["host all all 127.0.0.1/32 md5"])
        stage.write_to_vault(f"database/config/{demo.DATABASE}", password_authentication="password")
        # Without TLS it is not used unasked.
        stage.flags = ("--require-auth", "md5")
        md5 = "SELECT count(*) > 0 FROM pg_authid WHERE rolname LIKE 'v-%' AND rolpassword LIKE 'md5%'"
        stage.check = lambda: demo.expect(stage.as_superuser(md5).strip() == "t", "Vault's role has no md5 password")
    return start


def standby(stage):
    """The standby is named first; sessions go to the primary."""
    stage.start(version="18")
    beside = stage.servers.do(start="postgres", name="standby", version="18", standby_of="postgres")
    stage.hosts = f"127.0.0.1:{beside['port']},127.0.0.1:{stage.postgres['port']}"
    stage.words = "sslmode=disable&target_session_attrs=read-write"


def pgbouncer(stage):
    """In session mode. It knows few startup parameters, so clients lose theirs, directly too."""
    stage.start()
    ignored = "extra_float_digits,options,statement_timeout"
    pooler = stage.servers.do(start="pgbouncer", name="pgbouncer", to="postgres", settings={"ignore_startup_parameters": ignored})
    stage.direct_port = pooler["port"]


def replication(version):
    """A role that may replicate: it is not SET to its group, as the right is its own."""
    def start(stage):
        stage.start(version=version, conf={"wal_level": "logical"})
        stage.as_superuser("ALTER ROLE vault SUPERUSER; CREATE PUBLICATION everything FOR ALL TABLES")
        stage.write_to_vault("database/roles/app-role", db_name=demo.DATABASE, default_ttl="1h", creation_statements=(
            "CREATE ROLE \"{{name}}\" LOGIN REPLICATION PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE app_owner"))
        stage.prepare += "ALTER ROLE app RESET role; ALTER ROLE app REPLICATION;"
    return start


# All clients run on the first two; on the others a few of each kind do.
KINDS = {
    "system": of_version("system"),
    "18": of_version("18"),
    "14": of_version("14"),
    "16": of_version("16"),
    "17": of_version("17"),
    "tls": tls("18"),
    **{f"tls {version}": tls(version) for version in ("14", "system", "16", "17")},
    "client tls": client_tls("verify-full"),
    **{f"client tls {mode}": client_tls(mode) for mode in ("verify-ca", "require", "prefer")},
    "md5": md5("system"),
    **{f"md5 {version}": md5(version) for version in ("14", "16", "17", "18")},
    "standby": standby,
    "pgbouncer": pgbouncer,
    "replication": replication("system"),
    "replication 18": replication("18"),
}
# What the table says of them, behind the version.
ADDED = {**{kind: "TLS to the server" for kind in KINDS if kind.startswith("tls")}, "client tls": "TLS to leasehold",
         **{f"client tls {mode}": f"TLS to leasehold by `{mode}`" for mode in ("verify-ca", "require", "prefer")},
         **{kind: "md5" for kind in KINDS if kind.startswith("md5")}, "standby": "with a standby", "pgbouncer": "behind PgBouncer",
         "replication": "role with REPLICATION", "replication 18": "role with REPLICATION"}
