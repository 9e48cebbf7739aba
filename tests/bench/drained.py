#!/usr/bin/env python3
"""An app under drains, by the libraries that apps use. Works until its stdin ends, then prints what it has seen as JSON:
how often it worked, how many sessions it had, and each error, by its SQLSTATE or its text.

    python3 tests/bench/drained.py loop|pool|asyncpg postgresql://app@127.0.0.1:6432/db WORKERS PAUSE_MILLIS

`loop` is libpq by psycopg, a session for each worker; `pool` is psycopg_pool, which looks at a connection before it hands
it out; `asyncpg` is asyncpg's pool. Between two transactions a worker pauses for up to PAUSE_MILLIS, or not at all.
"""

import asyncio
import collections
import json
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import install  # noqa: E402  (beside this file)

install.ensure("python")
sys.path.insert(0, install.python())
import asyncpg  # noqa: E402  (in .dev)
import psycopg  # noqa: E402  (in .dev)
import psycopg_pool  # noqa: E402  (in .dev)

MODE, URL, WORKERS, PAUSE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) / 1000
stop = threading.Event()
seen = {"worked": 0, "sessions": 0, "errors": collections.Counter()}


def note(error):
    seen["errors"][getattr(error, "sqlstate", None) or f"{type(error).__name__}: {error}".strip()] += 1


def transact(connection):
    with connection.transaction():
        connection.execute("SELECT 1")
        connection.execute("SELECT 2")
    seen["worked"] += 1


def loop():
    while not stop.is_set():
        try:
            connection = psycopg.connect(URL, autocommit=True)
        except psycopg.OperationalError:
            return  # nobody listens any more
        with connection:
            seen["sessions"] += 1
            try:
                while not stop.is_set():
                    transact(connection)
                    if PAUSE:
                        time.sleep(PAUSE)
            except psycopg.Error as error:
                note(error)


def use(pool):
    while not stop.is_set():
        try:
            with pool.connection() as connection:
                transact(connection)
        except psycopg.Error as error:
            note(error)
        if PAUSE:
            time.sleep(random.uniform(0, PAUSE))


def in_threads(target, *arguments):
    threads = [threading.Thread(target=target, args=arguments) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def pooled():
    def count(connection):
        seen["sessions"] += 1

    check = psycopg_pool.ConnectionPool.check_connection
    with psycopg_pool.ConnectionPool(URL, min_size=WORKERS, max_size=WORKERS, check=check, configure=count,
                                     kwargs={"autocommit": True}) as pool:
        in_threads(use, pool)


async def asynchronous():
    async def count(_):
        seen["sessions"] += 1

    async def work():
        while not stop.is_set():
            try:
                async with pool.acquire() as connection:
                    async with connection.transaction():
                        await connection.execute("SELECT 1")
                        await connection.execute("SELECT 2")
                seen["worked"] += 1
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError,
                    asyncio.TimeoutError) as error:
                note(error)
            if PAUSE:
                await asyncio.sleep(random.uniform(0, PAUSE))

    async with asyncpg.create_pool(URL, min_size=WORKERS, max_size=WORKERS, init=count, ssl=False) as pool:
        await asyncio.gather(*(work() for _ in range(WORKERS)))


def main():
    run = {"loop": lambda: in_threads(loop), "pool": pooled, "asyncpg": lambda: asyncio.run(asynchronous())}[MODE]
    working = threading.Thread(target=run)
    working.start()
    print("working", flush=True)
    sys.stdin.read()
    stop.set()
    working.join()
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
