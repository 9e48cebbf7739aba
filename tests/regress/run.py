#!/usr/bin/env python3
"""Other people's suites, each run directly and through leasehold, compared test by test. Exit code 1 if a test comes out
differently and nothing in KNOWN says why.

    make regress                                      all of them; writes the table into docs/compatibility.md
    python3 tests/regress/run.py --only isolation     some, with commas
    python3 tests/regress/run.py --rotate 0           without the run through rotations
    make regress PSYCOPG=path/to/psycopg              psycopg's too, which are in its repository alone

What counts is not whether a test passes: some expect to be alone on a server that was set up for them. It is whether it says
the same each time, but for the role's name. Each run has a server of its own, where both roles are superusers.
"""

import argparse
import difflib
import os
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "clients"))
import run as clients  # noqa: E402  (in tests/clients; it puts tests/bench and tests/demo on the path)
import stage  # noqa: E402
import demo  # noqa: E402
import install  # noqa: E402
from suites import SUITES  # noqa: E402

# Tests of each suite that differ for a reason, which docs/compatibility.md gives.
KNOWN = {
    "regression": {"largeobject"},
    "asyncpg": {"test_executemany_server_failure_during_writes"},
    "psycopg2": {"test_user"},
    "psycopg": {"test_array_of_unknown_builtin", "test_multi_attempt_pgconn", "test_connect_operationalerror_pgconn"},
    "SQLAlchemy": {"test_multiple_host_real_connect"},
}


class Servers(stage.Stage):
    """Any database may be named, and both roles are superusers, as the suites expect."""

    def upstream(self):
        return f"postgresql://127.0.0.1:{self.direct_port}/?sslmode=disable"

    def environment(self, through):
        """libpq's variables, which all of the suites read."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        password = {} if through else {"PGPASSWORD": stage.PASSWORD}
        return {**kept, **password, "PGHOST": "127.0.0.1", "PGPORT": str(self.port if through else self.direct_port),
                "PGUSER": "app", "PGPASSFILE": os.path.join(install.DEV, "no-such-file")}


def superusers(servers):
    conf = {"allow_in_place_tablespaces": "on", "max_prepared_transactions": "2", "wal_level": "logical", "fsync": "off"}
    servers.start(version="system", conf=conf)
    servers.as_superuser("ALTER ROLE vault SUPERUSER")
    create = "CREATE ROLE \"{{name}}\" LOGIN SUPERUSER PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
    servers.write_to_vault("database/roles/app-role", db_name=demo.DATABASE, default_ttl="1h", max_ttl="24h",
                           # A role whose objects are still there could not be dropped.
                           creation_statements=create, revocation_statements="ALTER ROLE \"{{name}}\" NOLOGIN")
    servers.prepare += "ALTER ROLE app RESET role; ALTER ROLE app SUPERUSER; ALTER ROLE app RESET lock_timeout;"


stage.KINDS["superusers"] = superusers


def play(suite, binary, through, rotate=0):
    """{test: what it said} of one run, on servers of its own, and how many rotations there were meanwhile."""
    began = time.monotonic()
    with Servers(binary, "superusers") as servers:
        suite.prepare(servers)
        environment = {**servers.environment(through), "PGDATABASE": suite.database}
        done = threading.Event()
        rotations = []
        rotating = threading.Thread(target=keep_rotating, args=(servers, rotate, done, rotations))
        rotating.start()
        try:
            seen = suite.play(servers, environment)
        finally:
            done.set()
            rotating.join()
    if not seen:
        raise demo.Broken(f"{suite.name}: no test was run")
    way = "through leasehold" if through else "directly"
    say(f"{suite.name} {way}: {len(seen)} tests, {passed(seen)} pass, {len(rotations)} rotations, {time.monotonic() - began:.0f} s")
    return seen


def keep_rotating(servers, every, done, rotations):
    while every and not done.wait(every):
        servers.command("rotate")
        rotations.append(time.monotonic())


def passed(seen):
    return sum(verdict == "ok" for verdict, _ in seen.values())


def differing(suite, direct, through):
    """The tests that say something else, each shown."""
    tests = sorted(test for test in direct.keys() | through.keys() if direct.get(test) != through.get(test))
    for test in tests:
        left, right = (seen.get(test, ("not run", "")) for seen in (direct, through))
        say(f"{suite.name}: {test} differs: {left[0]} directly, {right[0]} through leasehold")
        lines = difflib.unified_diff(left[1].splitlines(), right[1].splitlines(), "directly", "through", lineterm="", n=1)
        for line in list(lines)[:40]:
            print(f"    {line[:160]}", file=sys.stderr)
    return tests


class Row:
    """One suite. Two runs directly tell what differs by itself, which is not held against leasehold."""

    def __init__(self, suite, options):
        self.suite = suite
        self.direct = play(suite, options.binary, through=False)
        self.differs = differing(suite, self.direct, play(suite, options.binary, through=True))
        self.rotated = None
        if options.rotate:
            self.rotated = differing(suite, self.direct, play(suite, options.binary, through=True, rotate=options.rotate))
        known = KNOWN.get(suite.name, ())
        suspects = {test for test in self.differs + (self.rotated or []) if name(test) not in known}
        self.unstable = []
        if suspects:
            again = differing(suite, self.direct, play(suite, options.binary, through=False))
            self.unstable = sorted(suspects & set(again))
        self.faults = sorted(suspects - set(self.unstable))

    def cells(self):
        def count(tests):
            if tests is None:
                return "not run"
            ours = [test for test in tests if test not in self.unstable]
            return f"{len(ours)}: {names(ours)}" if ours else "0"
        return (self.suite.name, self.suite.version, len(self.direct), passed(self.direct), count(self.differs), count(self.rotated),
                names(self.unstable) or "none")


def name(test):
    """Without the modules and the class that it is in, and without parameters; pytest names a file, and may have dots in a parameter."""
    test = test.partition("[")[0]
    return test.rsplit("::" if "::" in test else ".", 1)[-1]


def names(tests):
    return ", ".join(f"`{each}`" for each in dict.fromkeys(map(name, tests)))


def table(rows):
    """With the rows that the page has of suites that were not run."""
    lines = ["| suite | from | tests | pass directly | differ through leasehold | and with rotations | differ by themselves |",
             "|---|---|---|---|---|---|---|"]
    cells = {name: f"| {' | '.join(str(cell) for cell in row.cells())} |" for name, row in rows.items()}
    for line in clients.lines_of("compatibility.md", "suites"):
        cells.setdefault(line.removeprefix("| ").split(" | ")[0], line)
    order = [*SUITES, *sorted(cells)]
    return "\n".join(lines + [cells[name] for name in sorted(cells, key=order.index)])


def say(text):
    print(f"regress: {text}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SUITES), help=f"some of {', '.join(SUITES)}, with commas")
    parser.add_argument("--binary", help="a leasehold that is built already")
    parser.add_argument("--rotate", type=float, default=15, metavar="SECONDS", help="between rotations; 0: no such run")
    parser.add_argument("--write", action="store_true", help="write the table into docs/")
    options = parser.parse_args()
    unknown = sorted(set(options.only.split(",")) - set(SUITES))
    if unknown:
        parser.error(f"not known: {', '.join(unknown)}")
    options.binary = options.binary or clients.build()
    rows = {name: Row(SUITES[name], options) for name in options.only.split(",")}
    print(table(rows))
    faults = [f"{name}: {test}" for name, row in rows.items() for test in row.faults]
    if options.write and not faults:
        clients.write("compatibility.md", "suites", table(rows))
    for fault in faults:
        say(f"{fault} comes out differently, and nothing says why")
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (demo.Broken, install.Missing, subprocess.SubprocessError) as error:
        sys.exit(f"regress: {error}")
