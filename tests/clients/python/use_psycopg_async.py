"""psycopg 3 with asyncio, and its pool."""

import asyncio

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

import common
from use_psycopg import VALUES, keywords, version as sync_version


async def connect():
    return await psycopg.AsyncConnection.connect(common.URL, autocommit=True)


async def value(connection, sql, *values):
    return (await (await connection.execute(sql, values or None)).fetchone())[0]


async def table(connection):
    await connection.execute("DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)")


async def state_of(connection, sql):
    try:
        await connection.execute(sql)
    except psycopg.Error as error:
        return common.sqlstate(error)


async def version():
    return sync_version()


async def url():
    async with await connect() as connection:
        return await (await connection.execute(common.WHO)).fetchone()


async def keywords_():
    async with await psycopg.AsyncConnection.connect(**keywords) as connection:
        return await (await connection.execute(common.WHO)).fetchone()


async def identity():
    async with await connect() as connection:
        return await value(connection, "SELECT identity()")


async def prepared():
    async with await connect() as connection:
        return [(await (await connection.execute("SELECT %s::int * 2", (n,), prepare=True)).fetchone())[0] for n in (1, 2, 3)]


async def batch():
    async with await connect() as connection:
        await table(connection)
        async with connection.pipeline(), connection.cursor() as cursor:
            await cursor.executemany("INSERT INTO things VALUES (%s)", [(n,) for n in range(1, 101)])
            return await value(connection, "SELECT sum(x) FROM things")


async def transaction():
    async with await connect() as connection:
        await table(connection)
        async with connection.transaction():
            await connection.execute("INSERT INTO things VALUES (1)")
            async with connection.transaction():
                await connection.execute("INSERT INTO things VALUES (2)")
                raise psycopg.Rollback()
            await connection.execute("INSERT INTO things VALUES (3)")
        async with connection.transaction():
            await connection.execute("INSERT INTO things VALUES (4)")
            raise psycopg.Rollback()
        return await value(connection, "SELECT array_agg(x ORDER BY x) FROM things")


async def errors():
    async with await connect() as connection:
        await table(connection)
        await connection.execute("INSERT INTO things VALUES (1)")
        await connection.execute("BEGIN")
        inside = [await state_of(connection, "SELECT 1/0"), await state_of(connection, "SELECT 1")]
        await connection.execute("ROLLBACK")
        return inside + [await state_of(connection, sql) for sql in (
            "INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT")]


async def large():
    async with await connect() as connection:
        sent = "leasehold" * (common.LARGE // 9) + "x" * (common.LARGE % 9)
        cursor = await connection.execute("SELECT length(v), v FROM (SELECT %s::text AS v) t", (sent,))
        length, back = await cursor.fetchone()
        return [length / 1024 / 1024, back == sent]


async def copy():
    async with await connect() as connection, connection.cursor() as cursor:
        await table(connection)
        async with cursor.copy("COPY things FROM STDIN") as copy:
            for n in range(1, 10_001):
                await copy.write_row((n,))
        out = 0
        async with cursor.copy("COPY things TO STDOUT") as copy:
            async for row in copy.rows():
                out += int(row[0])
        return [await value(connection, "SELECT count(*) FROM things"), out]


async def notify():
    async with await connect() as listener, await connect() as other:
        await listener.execute("LISTEN news")
        await other.execute("NOTIFY news, 'said'")
        async for note in listener.notifies(timeout=10):
            return note.payload


async def cursor():
    async with await connect() as connection, connection.transaction(), connection.cursor("named") as named:
        named.itersize = 100
        await named.execute("SELECT * FROM generate_series(1, 1000)")
        return sum([row[0] async for row in named])


async def cancel():
    async with await connect() as connection:
        sleeping = asyncio.create_task(state_of(connection, "SELECT pg_sleep(30)"))
        await asyncio.sleep(0.3)
        await connection.cancel_safe()
        return [await sleeping, await value(connection, "SELECT 1")]


async def timeout():
    async with await connect() as connection:
        await connection.execute("SET statement_timeout = 500")
        return [await state_of(connection, "SELECT pg_sleep(30)"), await value(connection, "SELECT 1")]


async def types():
    sent = [Jsonb(value) if isinstance(value, dict) else value for value in VALUES]
    async with await connect() as connection:
        await connection.execute("SET timezone = 'UTC'")
        text = await value(connection, common.TYPES.format(*["%b"] * 12), *sent)
        casts = "SELECT %b::bool, %b::int8, %b::numeric, %b::float8, %b::text, %b::bytea, %b::date, %b::timestamptz, " \
                "%b::uuid, %b::jsonb, %b::int4[], %b::text"
        cursor = connection.cursor(binary=True)
        await cursor.execute(casts, sent)
        return [text, list(await cursor.fetchone()) == VALUES]


async def reconnect():
    async with await connect() as connection:
        said = await state_of(connection, "SELECT end_session()")
    async with await connect() as connection:
        return [said, await value(connection, "SELECT 1")]


async def pool():
    async with AsyncConnectionPool(common.URL, min_size=4, max_size=4) as pool:
        async def work():
            done = 0
            for _ in range(5):
                async with pool.connection() as connection:
                    done += await value(connection, "SELECT 1")
            return done
        return sum(await asyncio.gather(*(work() for _ in range(4))))


async def work_on_pool(stop, seen):
    settings = {"check": AsyncConnectionPool.check_connection, "max_lifetime": common.LIFETIME} if common.RECOMMENDED else {}
    async with AsyncConnectionPool(common.URL, min_size=common.WORKERS, max_size=common.WORKERS, **settings) as pool:
        async def transact():
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
                await connection.execute("SELECT 2")
        await common.in_tasks(stop, seen, transact)


def scenario():
    common.run_async([version, url, keywords_, identity, prepared, batch, transaction, errors, large, copy, notify, cursor, cancel,
                      timeout, types, reconnect, pool])


if __name__ == "__main__":
    common.main(scenario, lambda stop, seen: asyncio.run(work_on_pool(stop, seen)))
