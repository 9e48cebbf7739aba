"""psycopg 3, in threads and its pool."""

import datetime
import decimal
import threading
import time
import uuid

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

import common

keywords = {"host": common.HOST, "port": common.PORT, "user": common.USER, "dbname": common.DATABASE}
if common.PASSWORD:
    keywords["password"] = common.PASSWORD


def connect():
    return psycopg.connect(common.URL, autocommit=True)


def value(connection, sql, *values):
    return connection.execute(sql, values or None).fetchone()[0]


def table(connection, columns="x int PRIMARY KEY"):
    connection.execute(f"DROP TABLE IF EXISTS things; CREATE TABLE things ({columns})")


def state_of(connection, sql, *values):
    try:
        connection.execute(sql, values or None)
    except psycopg.Error as error:
        return common.sqlstate(error)


def version():
    number = psycopg.pq.version()
    return f"psycopg {psycopg.__version__} (libpq {number // 10000}.{number % 10000})"


def url():
    with psycopg.connect(common.URL) as connection:
        return connection.execute(common.WHO).fetchone()


def keywords_():
    with psycopg.connect(**keywords) as connection:
        return connection.execute(common.WHO).fetchone()


def identity():
    with connect() as connection:
        return value(connection, "SELECT identity()")


def prepared():
    with connect() as connection:
        return [connection.execute("SELECT %s::int * 2", (n,), prepare=True).fetchone()[0] for n in (1, 2, 3)]


def batch():
    with connect() as connection:
        table(connection)
        with connection.pipeline():
            for n in range(1, 101):
                connection.execute("INSERT INTO things VALUES (%s)", (n,))
            return value(connection, "SELECT sum(x) FROM things")


def transaction():
    with connect() as connection:
        table(connection)
        with connection.transaction():
            connection.execute("INSERT INTO things VALUES (1)")
            with connection.transaction():
                connection.execute("INSERT INTO things VALUES (2)")
                raise psycopg.Rollback()
            connection.execute("INSERT INTO things VALUES (3)")
        with connection.transaction():
            connection.execute("INSERT INTO things VALUES (4)")
            raise psycopg.Rollback()
        return value(connection, "SELECT array_agg(x ORDER BY x) FROM things")


def errors():
    with connect() as connection:
        table(connection)
        connection.execute("INSERT INTO things VALUES (1)")
        connection.execute("BEGIN")
        inside = [state_of(connection, "SELECT 1/0"), state_of(connection, "SELECT 1")]
        connection.execute("ROLLBACK")
        return inside + [state_of(connection, sql) for sql in (
            "INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT")]


def large():
    with connect() as connection:
        sent = b"\x00\xffleasehold" * (common.LARGE // 11) + b"x" * (common.LARGE % 11)
        cursor = connection.cursor(binary=True)
        length, back = cursor.execute("SELECT length(v), v FROM (SELECT %b::bytea AS v) t", (sent,)).fetchone()
        return [length / 1024 / 1024, back == sent]


def copy():
    with connect() as connection:
        table(connection)
        with connection.cursor() as cursor:
            with cursor.copy("COPY things FROM STDIN") as copy:
                for n in range(1, 10_001):
                    copy.write_row((n,))
            with cursor.copy("COPY things TO STDOUT") as copy:
                out = sum(int(row[0]) for row in copy.rows())
        return [value(connection, "SELECT count(*) FROM things"), out]


def notify():
    with connect() as listener, connect() as other:
        listener.execute("LISTEN news")
        other.execute("NOTIFY news, 'said'")
        return next(listener.notifies(timeout=10)).payload


def cursor():
    with connect() as connection, connection.transaction(), connection.cursor("named") as named:
        named.itersize = 100
        named.execute("SELECT * FROM generate_series(1, 1000)")
        return sum(row[0] for row in named)


def cancel():
    with connect() as connection:
        threading.Timer(0.3, connection.cancel_safe).start()
        return [state_of(connection, "SELECT pg_sleep(30)"), value(connection, "SELECT 1")]


def timeout():
    with psycopg.connect(common.URL, options="-c statement_timeout=500", autocommit=True) as connection:
        state = state_of(connection, "SELECT pg_sleep(30)")
        return [state, value(connection, "SELECT 1")]


VALUES = [True, 2**63 - 1, decimal.Decimal("12345.6789"), 1.5, "naïve ☃", b"\x00\xff", datetime.date(2024, 2, 29),
          datetime.datetime(2024, 2, 29, 12, 34, 56, 789000, datetime.timezone.utc),
          uuid.UUID("01234567-89ab-cdef-0123-456789abcdef"), {"a": [1, None]}, [1, 2, 3], None]


def types():
    sent = [Jsonb(value) if isinstance(value, dict) else value for value in VALUES]
    with connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        text = value(connection, common.TYPES.format(*["%s"] * 12), *sent)
        casts = "SELECT %s::bool, %s::int8, %s::numeric, %s::float8, %s::text, %s::bytea, %s::date, %s::timestamptz, " \
                "%s::uuid, %s::jsonb, %s::int4[], %s::text"
        return [text, list(connection.execute(casts, sent).fetchone()) == VALUES]


def reconnect():
    with connect() as connection:
        said = state_of(connection, "SELECT end_session()")
    with connect() as connection:
        return [said, value(connection, "SELECT 1")]


def pool():
    with ConnectionPool(common.URL, min_size=4, max_size=4) as pool:
        done = []

        def work():
            for _ in range(5):
                with pool.connection() as connection:
                    done.append(value(connection, "SELECT 1"))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done)


def work_on_pool(stop, seen):
    settings = {"check": ConnectionPool.check_connection, "max_lifetime": common.LIFETIME} if common.RECOMMENDED else {}
    with ConnectionPool(common.URL, min_size=common.WORKERS, max_size=common.WORKERS, **settings) as pool:
        def transact():
            with pool.connection() as connection:
                connection.execute("SELECT 1")
                connection.execute("SELECT 2")
        common.in_threads(stop, seen, transact)


def scenario():
    common.run([version, url, keywords_, identity, prepared, batch, transaction, errors, large, copy, notify, cursor, cancel, timeout,
                types, reconnect, pool])


if __name__ == "__main__":
    common.main(scenario, work_on_pool)
