"""The servers of one row of the matrix: a PostgreSQL of some kind, an OpenBao, leasehold in between; and what an app finds there."""

import contextlib
import os
import re
import sys

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
        self.flags, self.settings = flags, settings

    def __enter__(self):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                KINDS[self.kind](self)
                self.as_superuser(PREPARE)
                self.start_leasehold(*self.flags)
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
        return re.match(r"[\d.]+", self.as_superuser("SHOW server_version"))[0]

    def environment(self, through):
        """What a client is told: where, who, and directly its password. Nothing of the caller's PG* or Vault's."""
        port = self.port if through else self.direct_port
        secret = "" if through else f":{PASSWORD}"
        ours = {"CLIENT_URL": f"postgresql://app{secret}@127.0.0.1:{port}/{demo.DATABASE}", "CLIENT_HOST": "127.0.0.1",
                "CLIENT_PORT": str(port), "CLIENT_USER": "app", "CLIENT_DATABASE": demo.DATABASE}
        if not through:
            ours["CLIENT_PASSWORD"] = PASSWORD
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        return {**kept, **ours, "PGPASSFILE": "/dev/null"}


def of_version(version):
    return lambda stage: stage.start(version=version)


KINDS = {
    "system": of_version("system"),
    "18": of_version("18"),
}
