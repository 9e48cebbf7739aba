"""The clients of the matrix: how each is installed and started."""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile

import installs
import install

HERE = os.path.dirname(os.path.abspath(__file__))


class Client:
    """`start()` installs what is missing, and gives the command and what it needs of an environment.

    `pool`: it works on its pool when it is told `pool`. `says`: what a step tells of an error, as scenario.json names it:
    `expect` has SQLSTATEs, `messages` what the server says, for a client that hides the SQLSTATE.
    """

    def __init__(self, name, start, pool=False, says="expect"):
        self.name, self.start, self.pool, self.says = name, start, pool, says


def python(name, file, pool=False, path=None, **environment):
    def start():
        given = {key: value() for key, value in environment.items()}
        return [sys.executable, os.path.join(HERE, "python", f"{file}.py")], {"PYTHONPATH": (path or installs.python)(), **given}
    return Client(name, start, pool)


def small():
    """PYTHONPATH of what `make test` has anyway."""
    install.ensure("python")
    return install.python()


def node(name, file, pool=False, where=installs.node):
    return Client(name, lambda: (["node", os.path.join(where(), f"{file}.mjs")], {}), pool)


def java():
    path = installs.java()
    classes = os.path.join(install.DEV, "clients-java-classes")
    subprocess.run(["javac", "-d", classes, "-cp", path, os.path.join(HERE, "java", "Jdbc.java")], check=True)
    hikari, = (jar for jar in path.split(os.pathsep) if "HikariCP-" in jar)
    environment = {"HIKARI_VERSION": os.path.basename(hikari).removeprefix("HikariCP-").removesuffix(".jar")}
    return ["java", "-Xmx2g", "-cp", f"{path}{os.pathsep}{classes}", "Jdbc"], environment


def ruby():
    if "ready" not in said("ruby", "-rlogger", "-ractive_record", "-rpg", "-e", "puts :ready"):
        install.debian("Ruby with pg and ActiveRecord", "ruby ruby-pg ruby-activerecord")
    return ["ruby", os.path.join(HERE, "ruby", "use_pg.rb")], {}


def php():
    if "pdo_pgsql" not in said("php", "-m"):
        install.debian("PHP with PDO for PostgreSQL", "php-cli php-pgsql")
    return ["php", "-d", "memory_limit=1G", os.path.join(HERE, "php", "use_pdo.php")], {}


def odbc():
    if "PostgreSQL Unicode" not in said("odbcinst", "-q", "-d"):
        install.debian("PostgreSQL's ODBC driver", "odbcinst unixodbc odbc-postgresql")
    return [sys.executable, os.path.join(HERE, "python", "use_odbc.py")], {"PYTHONPATH": installs.python()}


def rust(name, program, says="expect"):
    def start():
        if "-lpq" not in said("pkg-config", "--libs", "libpq"):
            install.debian("libpq, which diesel stands on", "libpq-dev pkg-config")
        target = os.path.join(install.DEV, "clients-rust")
        subprocess.run(["cargo", "build", "--quiet", "--locked", "--manifest-path", os.path.join(HERE, "rust", "Cargo.toml")],
                       check=True, env={**os.environ, "CARGO_TARGET_DIR": target})
        return [os.path.join(target, "debug", program)], {}
    return Client(name, start, pool=True, says=says)


def go(name, build, file):
    @functools.cache
    def start():
        directory = os.path.join(tempfile.mkdtemp(prefix="leasehold-go-"), "client")
        build([os.path.join(HERE, "go", each) for each in ("common.go", file)], directory, dict(os.environ))
        return [os.path.join(directory, "app")], {"GO_VERSION": f"Go {install.GO}"}
    return Client(name, start, pool=True)


def said(*command):
    """What a program prints; nothing where it is missing or fails."""
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout
    return ""


# One of each implementation of the protocol; behind PgBouncer those that need no startup parameter.
ON_ALL_SERVERS = ("psql", "psycopg async", "asyncpg", "node-postgres", "pgjdbc")
BEHIND_PGBOUNCER = ("psql", "psycopg async", "pgjdbc")
# One of each library that encrypts.
WITH_TLS = ("psql", "psycopg", "asyncpg", "node-postgres", "postgres.js", "Prisma", "pgjdbc", "Ruby pg", "PHP PDO", "ODBC", "lib/pq",
            "pgx", "tokio-postgres", "sqlx", "diesel")

CLIENTS = [
    python("psql", "use_psql", path=small, CLIENT_PSQL=lambda: install.client("psql")),
    python("psql 18", "use_psql", path=small, CLIENT_PSQL=lambda: os.path.join(installs.postgres_18(), "psql")),
    python("psycopg", "use_psycopg", pool=True, path=small),
    python("psycopg async", "use_psycopg_async", pool=True, path=small),
    python("asyncpg", "use_asyncpg", pool=True, path=small),
    python("psycopg2", "use_psycopg2", pool=True),
    python("SQLAlchemy", "use_sqlalchemy", pool=True),
    python("Django", "use_django", pool=True),
    node("node-postgres", "use_pg", pool=True),
    node("postgres.js", "use_postgres", pool=True),
    node("Drizzle", "use_drizzle", pool=True),
    node("Prisma", "use_prisma", pool=True, where=installs.prisma),
    Client("pgjdbc", java, pool=True),
    Client("Ruby pg", ruby, pool=True),
    Client("PHP PDO", php, pool=True),
    Client("ODBC", odbc),
    go("lib/pq", installs.go_program, "main.go"),
    go("pgx", installs.pgx_program, os.path.join("pgx", "main.go")),
    rust("tokio-postgres", "use_tokio_postgres"),
    rust("sqlx", "use_sqlx"),
    rust("diesel", "use_diesel", says="messages"),
    python("programs", "use_programs", path=small, CLIENT_PROGRAMS=lambda: install.postgres("system")),
    python("programs 18", "use_programs", path=small, CLIENT_PROGRAMS=installs.postgres_18),
]
# Which clients run on which servers, where not all of them do that are not of REPLICATION.
SOME = {**dict.fromkeys(("14", "16", "17", "tls", "md5", "standby"), ON_ALL_SERVERS), "pgbouncer": BEHIND_PGBOUNCER,
        # How leasehold logs in at each version; that is the same for all clients.
        **dict.fromkeys((*(f"tls {version}" for version in ("14", "system", "16", "17")),
                         *(f"md5 {version}" for version in ("14", "16", "17", "18"))), ("psql", "asyncpg")),
        "client tls": WITH_TLS, "client tls verify-ca": ("psql", "asyncpg", "pgjdbc", "lib/pq", "pgx", "sqlx", "ODBC"),
        # tokio-postgres verifies by `require` too: its row is that with the CA.
        "client tls require": ("psql", "asyncpg", "node-postgres", "postgres.js", "pgjdbc", "lib/pq", "pgx", "sqlx", "ODBC", "diesel"),
        "client tls prefer": ("psql", "asyncpg", "postgres.js", "pgjdbc", "pgx", "sqlx", "ODBC"),
        "replication": ("programs",), "replication 18": ("programs 18",)}
REPLICATION = ("programs", "programs 18")

