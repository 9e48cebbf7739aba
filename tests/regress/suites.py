"""Other people's suites: how each is run at an address, and what each of its tests said."""

import json
import os
import re
import shutil
import subprocess
import sys

import sources  # first: it puts tests/bench on the path
import install

HERE = os.path.dirname(os.path.abspath(__file__))
WITHIN = 3000  # seconds, for one run of a suite
# The role that a session has: directly the app's own, through leasehold a dynamic one.
ROLE = re.compile(r"\bv-approle-app-role-[A-Za-z0-9-]+|\bapp\b")


class Schedule:
    """A schedule of pg_regress or pg_isolation_regress. A test says its verdict and its whole output."""

    database = "regression"

    def __init__(self, name, part, program, schedule):
        self.name, self.part, self.program, self.schedule = name, part, program, schedule
        self.version = f"PostgreSQL {sources.POSTGRES}"

    def prepare(self, servers):
        servers.as_superuser(f"CREATE DATABASE {self.database} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
                             database="postgres")
        # What pg_regress sets in a database of its own making.
        for setting in ("lc_messages TO 'C'", "timezone_abbreviations TO 'Default'", "bytea_output TO 'hex'"):
            servers.as_superuser(f"ALTER DATABASE {self.database} SET {setting}", database="postgres")

    def play(self, servers, environment):
        root = os.path.join(servers.dir, self.name)
        shutil.copytree(os.path.join(sources.postgres(), self.part), root)
        # The server reads and writes files there.
        install.run(["chmod", "-R", "a+rwX", root])
        programs = install.postgres("system")
        pgxs = os.path.join(os.path.dirname(programs), "lib", "pgxs", "src", "test", self.part)
        command = [os.path.join(pgxs, self.program), "--use-existing", "--dbname", self.database, "--bindir", programs,
                   "--host", environment["PGHOST"], "--port", environment["PGPORT"], "--user", environment["PGUSER"],
                   "--inputdir", root, "--outputdir", root, "--dlpath", root, "--max-concurrent-tests", "20",
                   "--schedule", os.path.join(root, self.schedule)]
        told = run(command, environment, root)
        verdicts = re.findall(r"^(?:test|\s+)\s*(\S+)\s+\.\.\. (ok|FAILED)", told, re.M)
        return {test: (verdict, self._output(root, test)) for test, verdict in verdicts}

    @staticmethod
    def _output(root, test):
        """Without the role's name, and without the padding that is as long as the name."""
        try:
            with open(os.path.join(root, "results", f"{test}.out"), errors="replace") as file:
                text = file.read()
        except FileNotFoundError:
            return ""
        return re.sub(r"[ \t]+|-{3,}", " ", ROLE.sub("ROLE", text.replace(root, "ROOT")))


class Pipeline:
    """libpq_pipeline. A test says how it ended, and in most the messages of the protocol as libpq traces them."""

    name, version, database = "libpq_pipeline", f"PostgreSQL {sources.POSTGRES}", "postgres"

    def prepare(self, servers):
        pass

    def play(self, servers, environment):
        program = os.path.join(sources.postgres(), "libpq_pipeline", "libpq_pipeline")
        tests = subprocess.run([program, "tests"], check=True, capture_output=True, text=True).stdout.split()
        return {test: self._of(program, test, servers, environment) for test in tests}

    @staticmethod
    def _of(program, test, servers, environment):
        trace = os.path.join(servers.dir, f"{test}.trace")
        done = subprocess.run([program, "-r", "700", "-t", trace, test, f"dbname={environment['PGDATABASE']}"], env=environment,
                              text=True, capture_output=True, timeout=WITHIN)
        verdict = "ok" if done.returncode == 0 else "FAILED"
        # Where PostgreSQL expects no trace, it depends on how much is sent before the first answer.
        if not os.path.exists(os.path.join(os.path.dirname(program), "traces", f"{test}.trace")):
            return verdict, done.stderr
        with open(trace, errors="replace") as file:
            return verdict, file.read()


class Unittests:
    """A package of Python unit tests. A test says its verdict, and the kind of its error."""

    database = "unittests"

    def __init__(self, requirement, more=None):
        self.requirement, self.more = requirement, more or {}
        self.name, self.version = requirement.split("==")

    def prepare(self, servers):
        servers.as_superuser(f"CREATE DATABASE {self.database}", database="postgres")

    def play(self, servers, environment):
        environment = {**environment, **self.more, "PYTHONPATH": clients_python(), "PYTHONDONTWRITEBYTECODE": "1"}
        told = run([sys.executable, os.path.join(HERE, "unittests.py")], environment, sources.python(self.requirement))
        return said(told)


class Pytests:
    """Tests that pytest runs in the directory `where()`: those that these arguments pick. A test says its verdict, and the kind of its error.

    `needs(servers, environment)`: more of an environment, and arguments that name the database.
    """

    database = "unittests"

    def __init__(self, name, version, where, arguments, needs):
        self.name, self.version, self.where, self.arguments, self.needs = name, version, where, arguments, needs

    def prepare(self, servers):
        servers.as_superuser(f"CREATE DATABASE {self.database}", database="postgres")

    def play(self, servers, environment):
        more, database = self.needs(servers, environment)
        path = os.pathsep.join([sources.pytest(), *more.pop("PYTHONPATH")])
        environment = {**environment, **more, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, os.path.join(HERE, "pytests.py"), "-q", "-o", f"cache_dir={servers.dir}/pytest", *self.arguments, *database]
        return said(run(command, environment, self.where()))


def psycopg():
    """With the psycopg beside them, in Python, from a checkout: its tests are in no package. Without those that its authors mark as
    slow, or as failing by the machine's speed."""
    checkout = os.environ["PSYCOPG"]
    with open(os.path.join(checkout, "psycopg", "pyproject.toml")) as file:
        version = re.search(r'^version = "(.*)"', file.read(), re.M)[1]

    def needs(_, environment):
        words = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE", "password": "PGPASSWORD"}
        dsn = " ".join(f"{word}={environment[name]}" for word, name in words.items() if name in environment)
        path = [os.path.join(checkout, part) for part in ("psycopg", "psycopg_pool")]
        return {"PSYCOPG_TEST_DSN": dsn, "PSYCOPG_IMPL": "python", "PYTHONPATH": path}, []
    return Pytests("psycopg", version, lambda: checkout, ["-m", "not slow and not timing and not flakey"], needs)


def sqlalchemy():
    """What is about databases and PostgreSQL; that of the ORM is the same on every one."""
    requirement = "SQLAlchemy==2.1.9"

    def needs(servers, environment):
        for schema in ("test_schema", "test_schema_2"):
            servers.as_superuser(f"CREATE SCHEMA {schema} AUTHORIZATION app", database=Pytests.database)
        secret = f":{environment['PGPASSWORD']}" if "PGPASSWORD" in environment else ""
        at = f"{environment['PGUSER']}{secret}@{environment['PGHOST']}:{environment['PGPORT']}/{environment['PGDATABASE']}"
        return {"PYTHONPATH": clients_python().split(os.pathsep)}, ["--dburi", f"postgresql+psycopg://{at}"]
    tests = ["test/dialect/postgresql", "test/dialect/test_suite.py", "--maxfail=0"]
    return Pytests(*requirement.split("=="), lambda: sources.python(requirement, ("test", "lib", "setup.cfg", "pyproject.toml")), tests, needs)


class Django:
    """What is about databases, by Django's own runner, which makes two databases for it."""

    requirement, database = "Django==5.2.19", "postgres"
    name, version = requirement.split("==")
    labels = ("aggregation", "backends", "bulk_create", "constraints", "db_functions", "get_or_create", "inspectdb", "introspection",
              "postgres_tests", "raw_query", "schema", "select_for_update", "transaction_hooks", "transactions")

    def prepare(self, servers):
        for database in ("default", "other"):
            servers.as_superuser(f'CREATE DATABASE "{database}"', database="postgres")

    def play(self, servers, environment):
        root = os.path.join(sources.python(self.requirement), "tests")
        environment = {**environment, "PYTHONPATH": os.pathsep.join([HERE, clients_python()]), "PYTHONDONTWRITEBYTECODE": "1"}
        return said(run([sys.executable, "runtests.py", "--settings=django_settings", "--parallel=1", *self.labels], environment, root))


def said(told):
    """{test: its verdict, and why}, of lines of JSON."""
    tests = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    return {test["test"]: (test["verdict"], test["why"]) for test in tests}


def run(command, environment, directory):
    """What it printed. Its exit code says only that some test failed."""
    done = subprocess.run(command, env=environment, cwd=directory, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=WITHIN)
    return done.stdout


def clients_python():
    """The packages that are tested, as the clients of the matrix have them."""
    sys.path.insert(0, os.path.join(os.path.dirname(HERE), "clients"))
    import installs
    return installs.python()


SUITES = {suite.name: suite for suite in (
    Schedule("regression", "regress", "pg_regress", "parallel_schedule"),
    Schedule("isolation", "isolation", "pg_isolation_regress", "isolation_schedule"),
    Pipeline(),
    Unittests("asyncpg==0.32.0"),
    # With its tests of replication, as the same user in the same database.
    Unittests("psycopg2==2.9.13", {"PSYCOPG2_TESTDB": Unittests.database, "PSYCOPG2_TEST_REPL_DSN": ""}),
    *([psycopg()] if os.environ.get("PSYCOPG") else []),
    sqlalchemy(),
    Django(),
)}
