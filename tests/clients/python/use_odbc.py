"""PostgreSQL's ODBC driver (psqlODBC), by pyodbc."""

import os
import threading

import pyodbc

import common
from use_psycopg import VALUES

WORDS = f"Driver={{PostgreSQL Unicode}};Server={common.HOST};Port={common.PORT};Database={common.DATABASE};Uid={common.USER}"
if common.PASSWORD:
    WORDS += f";Pwd={common.PASSWORD}"
if "PGSSLMODE" in os.environ:
    WORDS += f";SSLmode={os.environ['PGSSLMODE']}"  # otherwise it disables TLS, whatever libpq's variable says


def connect(words=""):
    return pyodbc.connect(WORDS + words, autocommit=True)


def value(connection, sql, *values):
    return connection.execute(sql, *values).fetchone()[0]


def table(connection):
    connection.execute("DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)")


def state_of(connection, sql):
    try:
        connection.execute(sql)
    except pyodbc.Error as error:
        return error.args[0]


def version():
    return f"psqlODBC {connect().getinfo(pyodbc.SQL_DRIVER_VER)}, pyodbc {pyodbc.version}"


def keywords():
    return list(connect().execute(common.WHO).fetchone())


def identity():
    return value(connect(), "SELECT identity()")


def prepared():
    connection = connect(";UseServerSidePrepare=1")
    return [value(connection, "SELECT CAST(? AS int) * 2", n) for n in (1, 2, 3)]


def batch():
    connection = connect()
    table(connection)
    connection.cursor().executemany("INSERT INTO things VALUES (?)", [(n,) for n in range(1, 101)])
    return value(connection, "SELECT sum(x) FROM things")


def transaction():
    connection = connect()
    table(connection)
    connection.autocommit = False
    for sql in ("INSERT INTO things VALUES (1)", "SAVEPOINT s", "INSERT INTO things VALUES (2)", "ROLLBACK TO s",
                "INSERT INTO things VALUES (3)"):
        connection.execute(sql)
    connection.commit()
    connection.execute("INSERT INTO things VALUES (4)")
    connection.rollback()
    return [row[0] for row in connection.execute("SELECT x FROM things ORDER BY x")]


def errors():
    """The SQLSTATE of an error is what the driver makes of it; the server's own is not what every call hands on."""
    connection = connect(";Protocol=7.4-0")  # otherwise it takes back a statement that fails by a savepoint
    table(connection)
    connection.execute("INSERT INTO things VALUES (1)")
    connection.autocommit = False
    inside = [state_of(connection, "SELECT 1/0"), state_of(connection, "SELECT 1")]
    connection.rollback()
    connection.autocommit = True
    return inside + [state_of(connection, sql) for sql in (
        "INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT")]


def large():
    # Otherwise a text comes back as far as 8,190 characters.
    connection = connect(f";MaxLongVarcharSize={common.LARGE}")
    sent = "leasehold" * (common.LARGE // 9) + "x" * (common.LARGE % 9)
    length, back = connection.execute("SELECT length(v), v FROM (SELECT CAST(? AS text) AS v) t", sent).fetchone()
    return [length / 1024 / 1024, back == sent]


def cursor():
    connection = connect(";UseDeclareFetch=1;Fetch=100")
    return sum(row[0] for row in connection.execute("SELECT * FROM generate_series(1, 1000)"))


def cancel():
    """SQLCancel, from another thread."""
    connection, other = connect(), connect()
    running = connection.cursor()

    def when_it_sleeps():
        while value(other, common.SLEEPERS) == 0:
            pass
        running.cancel()
    canceller = threading.Thread(target=when_it_sleeps)
    canceller.start()
    state = state_of(running, common.SLEEP)
    canceller.join()
    return [state, value(connection, "SELECT 1")]


def timeout():
    connection = connect()
    connection.execute("SET statement_timeout = 500")
    return [state_of(connection, "SELECT pg_sleep(30)"), value(connection, "SELECT 1")]


def types():
    """ODBC has no type for a time with its zone, for JSON or for an array: these go as text."""
    connection = connect(";BoolsAsChar=0;ByteaAsLongVarBinary=1")
    connection.execute("SET timezone = 'UTC'")
    sent = list(VALUES)
    sent[7], sent[9], sent[10] = VALUES[7].replace(tzinfo=None), '{"a": [1, null]}', "{1,2,3}"
    casts = "SELECT ?::bool, ?::int8, ?::numeric, ?::float8, ?::text, ?::bytea, ?::date, ?::timestamptz, ?::uuid, ?::jsonb, " \
            "?::int4[], ?::text"
    pyodbc.native_uuid = True
    back = list(connection.execute(casts, *sent).fetchone())
    return [value(connection, common.TYPES.format(*["?"] * 12), *sent), back == sent]


def reconnect():
    said = state_of(connect(), "SELECT end_session()")
    return [said, value(connect(), "SELECT 1")]


if __name__ == "__main__":
    common.main(lambda: common.run([version, keywords, identity, prepared, batch, transaction, errors, large, cursor, cancel,
                                    timeout, types, reconnect]), None)
