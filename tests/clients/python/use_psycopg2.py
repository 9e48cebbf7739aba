"""psycopg2 and its pool."""

import io
import select
import threading
import time

import psycopg2
import psycopg2.extras
from psycopg2.pool import ThreadedConnectionPool

import common
from use_psycopg import VALUES, keywords


class session:
    """A connection for a `with`, closed after it."""

    def __init__(self, *target, autocommit=True, **options):
        self.connection = psycopg2.connect(*(target or [common.URL]), **options)
        self.connection.autocommit = autocommit

    def __enter__(self):
        return self.connection

    def __exit__(self, *_):
        self.connection.close()


def rows(connection, sql, values=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


def value(connection, sql, values=None):
    return rows(connection, sql, values)[0][0]


def table(connection):
    rows(connection, "DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)")


def state_of(connection, sql):
    try:
        rows(connection, sql)
    except psycopg2.Error as error:
        return common.sqlstate(error)


def version():
    return f"psycopg2 {psycopg2.__version__.split()[0]}"


def url():
    with session() as connection:
        return rows(connection, common.WHO)[0]


def keywords_():
    connection = psycopg2.connect(**keywords)
    try:
        return rows(connection, common.WHO)[0]
    finally:
        connection.close()


def identity():
    with session() as connection:
        return value(connection, "SELECT identity()")


def prepared():
    with session() as connection:
        rows(connection, "PREPARE double(int) AS SELECT $1 * 2")
        return [value(connection, "EXECUTE double(%s)", (n,)) for n in (1, 2, 3)]


def batch():
    with session() as connection, connection.cursor() as cursor:
        table(connection)
        psycopg2.extras.execute_batch(cursor, "INSERT INTO things VALUES (%s)", [(n,) for n in range(1, 101)])
        return value(connection, "SELECT sum(x) FROM things")


def transaction():
    with session(autocommit=False) as connection:
        with connection:
            table(connection)
            rows(connection, "INSERT INTO things VALUES (1); SAVEPOINT s; INSERT INTO things VALUES (2); ROLLBACK TO s")
            rows(connection, "INSERT INTO things VALUES (3)")
        rows(connection, "INSERT INTO things VALUES (4)")
        connection.rollback()
        return value(connection, "SELECT array_agg(x ORDER BY x) FROM things")


def errors():
    with session() as connection:
        table(connection)
        rows(connection, "INSERT INTO things VALUES (1)")
        rows(connection, "BEGIN")
        inside = [state_of(connection, "SELECT 1/0"), state_of(connection, "SELECT 1")]
        rows(connection, "ROLLBACK")
        return inside + [state_of(connection, sql) for sql in (
            "INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT")]


def large():
    with session() as connection:
        sent = "leasehold" * (common.LARGE // 9) + "x" * (common.LARGE % 9)
        length, back = rows(connection, "SELECT length(v), v FROM (SELECT %s::text AS v) t", (sent,))[0]
        return [length / 1024 / 1024, back == sent]


def copy():
    with session() as connection, connection.cursor() as cursor:
        table(connection)
        cursor.copy_expert("COPY things FROM STDIN", io.StringIO("".join(f"{n}\n" for n in range(1, 10_001))))
        out = io.StringIO()
        cursor.copy_expert("COPY things TO STDOUT", out)
        return [value(connection, "SELECT count(*) FROM things"), sum(int(line) for line in out.getvalue().split())]


def notify():
    with session() as listener, session() as other:
        rows(listener, "LISTEN news")
        rows(other, "NOTIFY news, 'said'")
        select.select([listener], [], [], 10)
        listener.poll()
        return listener.notifies[0].payload


def cursor():
    with session(autocommit=False) as connection, connection.cursor("named") as named:
        named.itersize = 100
        named.execute("SELECT * FROM generate_series(1, 1000)")
        return sum(row[0] for row in named)


def cancel():
    with session() as connection, session() as other:
        def when_it_sleeps():
            while not value(other, common.SLEEPERS):
                pass
            connection.cancel()
        canceller = threading.Thread(target=when_it_sleeps)
        canceller.start()
        state = state_of(connection, common.SLEEP)
        canceller.join()
        return [state, value(connection, "SELECT 1")]


def timeout():
    with session(options="-c statement_timeout=500") as connection:
        return [state_of(connection, "SELECT pg_sleep(30)"), value(connection, "SELECT 1")]


def types():
    psycopg2.extras.register_uuid()
    sent = [psycopg2.extras.Json(value) if isinstance(value, dict) else value for value in VALUES]
    with session() as connection:
        rows(connection, "SET timezone = 'UTC'")
        text = value(connection, common.TYPES.format(*["%s"] * 12), sent)
        casts = "SELECT %s::bool, %s::int8, %s::numeric, %s::float8, %s::text, %s::bytea, %s::date, %s::timestamptz, " \
                "%s::uuid, %s::jsonb, %s::int4[], %s::text"
        back = [bytes(one) if isinstance(one, memoryview) else one for one in rows(connection, casts, sent)[0]]
        return [text, back == VALUES]


def reconnect():
    with session() as connection:
        said = state_of(connection, "SELECT end_session()")
    with session() as connection:
        return [said, value(connection, "SELECT 1")]


def pool():
    pool = ThreadedConnectionPool(4, 4, common.URL)
    done = []

    def work():
        for _ in range(5):
            connection = pool.getconn()
            with connection:
                done.append(value(connection, "SELECT 1"))
            pool.putconn(connection)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.closeall()
    return sum(done)


class Aged(psycopg2.extensions.connection):
    def __init__(self, *target, **options):
        super().__init__(*target, **options)
        self.born = time.monotonic()


def take(pool):
    """A connection that works: by itself the pool looks at none, and keeps each for ever."""
    while True:
        connection = pool.getconn()
        try:
            with connection:
                rows(connection, "SELECT 1")
            return connection
        except psycopg2.OperationalError:
            pool.putconn(connection, close=True)


def work_on_pool(stop, seen):
    pool = ThreadedConnectionPool(common.WORKERS, common.WORKERS, common.URL, connection_factory=Aged)

    def transact():
        connection = take(pool) if common.RECOMMENDED else pool.getconn()
        try:
            with connection:
                rows(connection, "SELECT 1")
                rows(connection, "SELECT 2")
        finally:
            pool.putconn(connection, close=common.RECOMMENDED and time.monotonic() > connection.born + common.LIFETIME)
    common.in_threads(stop, seen, transact)


if __name__ == "__main__":
    common.main(lambda: common.run([
        version, url, keywords_, identity, prepared, batch, transaction, errors, large, copy, notify, cursor, cancel, timeout,
        types, reconnect, pool]), work_on_pool)
