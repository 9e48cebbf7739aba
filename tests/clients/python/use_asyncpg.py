"""asyncpg and its pool."""

import asyncio
import io
import json

import asyncpg

import common
from use_psycopg import VALUES

# asyncpg asks for TLS by itself, as libpq does.
settings = {"host": common.HOST, "port": common.PORT, "user": common.USER, "database": common.DATABASE,
            "password": common.PASSWORD}


class session:
    """A connection for a `with`."""

    async def __aenter__(self):
        self.connection = await asyncpg.connect(common.URL)
        return self.connection

    async def __aexit__(self, *_):
        await self.connection.close()


async def table(connection):
    await connection.execute("DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)")


async def state_of(connection, sql):
    try:
        await connection.execute(sql)
    except asyncpg.PostgresError as error:
        return common.sqlstate(error)


async def version():
    return f"asyncpg {asyncpg.__version__}"


async def url():
    async with session() as connection:
        return list(await connection.fetchrow(common.WHO))


async def keywords_():
    connection = await asyncpg.connect(**settings)
    try:
        return list(await connection.fetchrow(common.WHO))
    finally:
        await connection.close()


async def identity():
    async with session() as connection:
        return await connection.fetchval("SELECT identity()")


async def prepared():
    async with session() as connection:
        statement = await connection.prepare("SELECT $1::int * 2")
        return [await statement.fetchval(n) for n in (1, 2, 3)]


async def batch():
    async with session() as connection:
        await table(connection)
        await connection.executemany("INSERT INTO things VALUES ($1)", [(n,) for n in range(1, 101)])
        return await connection.fetchval("SELECT sum(x) FROM things")


async def transaction():
    class Undo(Exception):
        pass

    async with session() as connection:
        await table(connection)
        async with connection.transaction():
            await connection.execute("INSERT INTO things VALUES (1)")
            try:
                async with connection.transaction():
                    await connection.execute("INSERT INTO things VALUES (2)")
                    raise Undo
            except Undo:
                await connection.execute("INSERT INTO things VALUES (3)")
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO things VALUES (4)")
                raise Undo
        except Undo:
            return await connection.fetchval("SELECT array_agg(x ORDER BY x) FROM things")


async def errors():
    async with session() as connection:
        await table(connection)
        await connection.execute("INSERT INTO things VALUES (1)")
        await connection.execute("BEGIN")
        inside = [await state_of(connection, "SELECT 1/0"), await state_of(connection, "SELECT 1")]
        await connection.execute("ROLLBACK")
        return inside + [await state_of(connection, sql) for sql in (
            "INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT")]


async def large():
    async with session() as connection:
        sent = b"\x00\xffleasehold" * (common.LARGE // 11) + b"x" * (common.LARGE % 11)
        length, back = await connection.fetchrow("SELECT length(v), v FROM (SELECT $1::bytea AS v) t", sent)
        return [length / 1024 / 1024, back == sent]


async def copy():
    async with session() as connection:
        await table(connection)
        await connection.copy_records_to_table("things", records=[(n,) for n in range(1, 10_001)])
        out = io.BytesIO()
        await connection.copy_from_table("things", output=out)
        return [await connection.fetchval("SELECT count(*) FROM things"), sum(int(line) for line in out.getvalue().split())]


async def notify():
    async with session() as listener, session() as other:
        payload = asyncio.get_running_loop().create_future()
        await listener.add_listener("news", lambda *note: payload.set_result(note[3]))
        await other.execute("NOTIFY news, 'said'")
        return await asyncio.wait_for(payload, 10)


async def cursor():
    async with session() as connection, connection.transaction():
        return sum([row[0] async for row in connection.cursor("SELECT * FROM generate_series(1, 1000)", prefetch=100)])


async def cancel():
    """A time-out of the client is what makes asyncpg send a cancel; it keeps the 57014 to itself."""
    async with session() as connection, session() as other:
        sleeping = asyncio.create_task(connection.execute(common.SLEEP, timeout=2))
        while not await other.fetchval(common.SLEEPERS):
            await asyncio.sleep(0.05)
        try:
            await sleeping
        except asyncio.TimeoutError:
            # It waits until its cancel is through.
            one = await connection.fetchval("SELECT 1")
            return ["it sleeps on" if await other.fetchval(common.SLEEPERS) else "57014", one]


async def timeout():
    connection = await asyncpg.connect(common.URL, server_settings={"statement_timeout": "500"})
    try:
        return [await state_of(connection, "SELECT pg_sleep(30)"), await connection.fetchval("SELECT 1")]
    finally:
        await connection.close()


async def types():
    async with session() as connection:
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        await connection.execute("SET timezone = 'UTC'")
        text = await connection.fetchval(common.TYPES.format(*[f"${n}" for n in range(1, 13)]), *VALUES)
        casts = "SELECT $1::bool, $2::int8, $3::numeric, $4::float8, $5::text, $6::bytea, $7::date, $8::timestamptz, " \
                "$9::uuid, $10::jsonb, $11::int4[], $12::text"
        return [text, list(await connection.fetchrow(casts, *VALUES)) == VALUES]


async def reconnect():
    async with session() as connection:
        said = await state_of(connection, "SELECT end_session()")
    async with session() as connection:
        return [said, await connection.fetchval("SELECT 1")]


async def pool():
    async with asyncpg.create_pool(common.URL, min_size=4, max_size=4) as pool:
        async def work():
            return sum([await pool.fetchval("SELECT 1") for _ in range(5)])
        return sum(await asyncio.gather(*(work() for _ in range(4))))


async def work_on_pool(stop, seen):
    async with asyncpg.create_pool(common.URL, min_size=common.WORKERS, max_size=common.WORKERS) as pool:
        async def expire():
            """asyncpg's pool has no lifetime for a connection that is in use again and again."""
            while common.RECOMMENDED:
                await asyncio.sleep(common.LIFETIME)
                await pool.expire_connections()
        expiring = asyncio.create_task(expire())

        async def transact():
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT 1")
                await connection.execute("SELECT 2")
        await common.in_tasks(stop, seen, transact)
        expiring.cancel()


def scenario():
    common.run_async([version, url, keywords_, identity, prepared, batch, transaction, errors, large, copy, notify, cursor, cancel,
                      timeout, types, reconnect, pool])


if __name__ == "__main__":
    common.main(scenario, lambda stop, seen: asyncio.run(work_on_pool(stop, seen)))
