"""PostgreSQL's own programs, those in $CLIENT_PROGRAMS: dump and restore, pgbench, a base backup, logical replication."""

import os
import re
import subprocess
import tempfile

import common

PROGRAMS = os.environ["CLIENT_PROGRAMS"]


def program(name, *words, **options):
    """What it prints. It is told of the server by PG*, and has a password directly only."""
    environment = {**os.environ, "PGHOST": common.HOST, "PGPORT": str(common.PORT), "PGUSER": common.USER,
                   "PGDATABASE": common.DATABASE, **({"PGPASSWORD": common.PASSWORD} if common.PASSWORD else {})}
    done = subprocess.run([os.path.join(PROGRAMS, name), *words], env=environment, capture_output=True, text=True,
                          errors="replace", **options)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-300:]}")
    return done.stdout


def sql(text):
    return program("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text).split()


def version():
    done = subprocess.run([os.path.join(PROGRAMS, "pg_dump"), "--version"], capture_output=True, text=True)
    return f"pg_dump and others {re.search(r'[0-9.]+', done.stdout)[0]}"


def identity():
    return program("psql", "-XAtqc", "SELECT identity()").strip()


def dump():
    sql("DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)")
    sql("INSERT INTO things SELECT generate_series(1, 10000)")
    with tempfile.TemporaryDirectory() as home:
        file = os.path.join(home, "dump")
        program("pg_dump", "-Fc", "-t", "things", "-f", file)
        sql("DELETE FROM things WHERE x > 10")
        program("pg_restore", "--clean", "-d", common.DATABASE, file)
        jobs = os.path.join(home, "jobs")
        program("pg_dump", "-Fd", "-j", "3", "-t", "things", "-f", jobs)
        plain = program("pg_dump", "-t", "things")
    # Since 2025 a dump has a key in it that is new each time.
    lines = [line for line in plain.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
    return [int(sql("SELECT count(*) FROM things")[0]), len(lines)]


def pgbench():
    subprocess.run([os.path.join(PROGRAMS, "psql"), "-wXq", "-c", "DROP TABLE IF EXISTS things", common.URL], check=True)
    program("pgbench", "-i", "-q", "-s", "1", "--unlogged-tables")
    done = []
    for protocol in ("simple", "extended", "prepared"):
        told = program("pgbench", "-n", "-M", protocol, "-c", "4", "-t", "50")
        done.append(re.search(r"actually processed: (\S+)", told)[1])
    program("pgbench", "-i", "-I", "d")
    return done


def basebackup():
    with tempfile.TemporaryDirectory() as home:
        target = os.path.join(home, "backup")
        program("pg_basebackup", "-D", target, "-X", "stream", "-c", "fast")
        checked = subprocess.run([os.path.join(PROGRAMS, "pg_verifybackup"), "-n", target], capture_output=True, text=True)
        return checked.stdout.strip() or checked.stderr.strip()


def recvlogical():
    """The changes that pgoutput gives of three rows; where it ends is told beforehand."""
    sql("DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)")
    words = ("-d", common.DATABASE, "-S", "clients")
    program("pg_recvlogical", *words, "-P", "pgoutput", "--create-slot")
    try:
        sql("INSERT INTO things SELECT generate_series(1, 3)")
        end = sql("SELECT pg_current_wal_insert_lsn()")[0]
        out = program("pg_recvlogical", *words, "--start", "-f", "-", "-E", end, "-o", "proto_version=1", "-o",
                      "publication_names=everything", timeout=60)
    finally:
        program("pg_recvlogical", *words, "--drop-slot")
    return [out.count("things"), len(re.findall(r"I..", out)) >= 3]


if __name__ == "__main__":
    common.run([version, identity, dump, pgbench, basebackup, recvlogical])
