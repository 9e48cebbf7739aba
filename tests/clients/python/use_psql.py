"""psql, the one at $CLIENT_PSQL: as scripts use it, and as people do, at a terminal."""

import json
import os
import pty
import re
import select
import subprocess
import tempfile
import time

import common

PSQL = os.environ["CLIENT_PSQL"]
NUMBER = re.search(r"[\d.]+", subprocess.run([PSQL, "--version"], capture_output=True, text=True).stdout)[0]
VERSION = int(NUMBER.split(".")[0])


def psql(*commands, target=common.URL, stop=True, **variables):
    """The lines that it prints for these commands, one script."""
    words = [PSQL, "-wXAtq", "-v", f"ON_ERROR_STOP={int(stop)}"]
    for name, value in variables.items():
        words += ["-v", f"{name}={value}"]
    done = subprocess.run([*words, target], input="\n".join(commands) + "\n", text=True, capture_output=True)
    if stop and done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout.splitlines()


def who(target):
    return psql(f"{common.WHO};", target=target)[0].split("|")


def version():
    return f"psql {NUMBER}"


def url():
    return who(common.URL)


def keywords():
    password = f" password={common.PASSWORD}" if common.PASSWORD else ""
    return who(f"host={common.HOST} port={common.PORT} user={common.USER} dbname={common.DATABASE}{password}")


def identity():
    return psql("SELECT identity();")[0]


def prepared():
    if VERSION >= 18:
        lines = psql(r"SELECT $1::int * 2 \parse double", *[rf"\bind_named double {n} \g" for n in (1, 2, 3)])
    else:
        lines = psql("PREPARE double(int) AS SELECT $1 * 2;", *[f"EXECUTE double({n});" for n in (1, 2, 3)])
    return [int(line) for line in lines]


TABLE = "SET client_min_messages = warning; DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY);"


def batch():
    if VERSION >= 18:
        insert = [r"INSERT INTO things VALUES ($1) \bind " + str(n) + r" \sendpipeline" for n in range(1, 101)]
        lines = psql(TABLE, r"\startpipeline", *insert, r"\endpipeline", "SELECT sum(x) FROM things;")
    else:
        lines = psql(TABLE, r"\;".join(f"INSERT INTO things VALUES ({n})" for n in range(1, 101)) + ";", "SELECT sum(x) FROM things;")
    return int(lines[-1])


def transaction():
    lines = psql(TABLE, "BEGIN;", "INSERT INTO things VALUES (1);", "SAVEPOINT s;", "INSERT INTO things VALUES (2);",
                 "ROLLBACK TO s;", "INSERT INTO things VALUES (3);", "COMMIT;", "BEGIN;", "INSERT INTO things VALUES (4);",
                 "ROLLBACK;", "SELECT x FROM things ORDER BY x;")
    return [int(line) for line in lines]


def errors():
    said = r"\echo :SQLSTATE"
    return psql(TABLE, "INSERT INTO things VALUES (1);", "BEGIN;", "SELECT 1/0;", said, "SELECT 1;", said, "ROLLBACK;",
                "INSERT INTO things VALUES (1);", said, "SELECT * FROM no_such_table;", said, "SELEKT;", said, stop=False)


def large():
    """A large object: \\lo_import and \\lo_export, which call functions by fastpath."""
    with tempfile.TemporaryDirectory() as home:
        there, back = os.path.join(home, "there"), os.path.join(home, "back")
        block = os.urandom(1024 * 1024)
        with open(there, "wb") as file:
            for _ in range(common.LARGE // len(block)):
                file.write(block)
        lines = psql(f"\\lo_import {there}", r"SELECT length(lo_get(:LASTOID));", f"\\lo_export :LASTOID {back}",
                     r"\lo_unlink :LASTOID")
        with open(there, "rb") as left, open(back, "rb") as right:
            return [int(lines[0]) / 1024 / 1024, left.read() == right.read()]


def copy():
    with tempfile.TemporaryDirectory() as home:
        there, back = os.path.join(home, "there"), os.path.join(home, "back")
        with open(there, "w") as file:
            file.writelines(f"{n}\n" for n in range(1, 10_001))
        lines = psql(TABLE, f"\\copy things from '{there}'", "SELECT count(*) FROM things;", f"\\copy things to '{back}'")
        with open(back) as file:
            return [int(lines[0]), sum(int(line) for line in file)]


def notify():
    lines = psql("LISTEN news;", "NOTIFY news, 'said';")
    return re.search('payload "(.*)" received', lines[-1])[1]


def cursor():
    """With FETCH_COUNT psql reads in pieces: up to 16 by a cursor, since then by chunks of rows."""
    return sum(int(line) for line in psql(r"\set FETCH_COUNT 100", "SELECT * FROM generate_series(1, 1000);"))


class Terminal:
    """psql as a person has it."""

    def __init__(self):
        self.process, self.end = pty.fork()
        if self.process == 0:
            os.execve(PSQL, [PSQL, "-wXAt", "-v", r"VERBOSITY=sqlstate", "--pset=pager=off", "-n", common.URL],
                      {**os.environ, "TERM": "dumb"})
        self.said = ""
        self.until("=[>#] $")

    def until(self, pattern):
        deadline = time.monotonic() + 20
        while True:
            if found := re.search(pattern, self.said):
                self.said = self.said[found.end():]
                return found
            if time.monotonic() > deadline or not select.select([self.end], [], [], deadline - time.monotonic())[0]:
                raise TimeoutError(f"no {pattern!r} in {self.said!r}")
            self.said += os.read(self.end, 4096).decode().replace("\r", "")

    def type(self, text):
        os.write(self.end, text.encode())

    def close(self):
        self.type("\\q\n")
        os.waitpid(self.process, 0)
        os.close(self.end)


def cancel():
    """By Ctrl-C."""
    terminal = Terminal()
    terminal.type(f"{common.SLEEP};\n")
    # The lock is seen by all, other than what a session of another role does.
    deadline = time.monotonic() + 20
    while psql(f"{common.SLEEPERS};") == ["0"] and time.monotonic() < deadline:
        time.sleep(0.05)
    terminal.type("\x03")
    state = terminal.until("ERROR: +([0-9A-Z]{5})")[1]
    terminal.until("=[>#] $")
    terminal.type("SELECT 41 + 1;\n")
    answer = terminal.until(r"\n42\n")
    terminal.close()
    return [state, 1 if answer else 0]


def timeout():
    return [psql("SET statement_timeout = 500;", "SELECT pg_sleep(30);", r"\echo :SQLSTATE", stop=False)[0],
            int(psql("SELECT 1;")[0])]


VALUES = ["true", str(2**63 - 1), "12345.6789", "1.5", "naïve ☃", r"\x00ff", "2024-02-29", "2024-02-29 12:34:56.789+00",
          "01234567-89ab-cdef-0123-456789abcdef", json.dumps({"a": [1, None]}), "{1,2,3}", ""]


def types():
    variables = {f"v{n}": value for n, value in enumerate(VALUES)}
    sql = common.TYPES.format(*[f":'v{n}'" for n in range(12)])
    line = psql("SET timezone = 'UTC';", f"{sql};", **variables)[0]
    casts = "SELECT :'v4'::text;"
    return [line, psql(casts, **variables) == [VALUES[4]]]


def reconnect():
    """At a terminal psql connects again by itself."""
    terminal = Terminal()
    terminal.type("SELECT end_session();\n")
    said = terminal.until("FATAL: +([0-9A-Z]{5})")[1]
    terminal.until("Succeeded")
    terminal.until("=[>#] $")
    terminal.type("SELECT 41 + 1;\n")
    terminal.until(r"\n42\n")
    terminal.close()
    return [said, 1]


if __name__ == "__main__":
    common.run([version, url, keywords, identity, prepared, batch, transaction, errors, large, copy, notify, cursor, cancel, timeout,
                types, reconnect])
