"""What the clients in Python share: where to connect to, and how a step of ../scenario.json is told.

A client prints a line of JSON for each step: {"step": NAME, "result": ...}, or {"step": NAME, "failed": TEXT}. As
`CLIENT pool` it works on its pool until its stdin ends, then prints {"worked": N, "errors": {SQLSTATE OR TEXT: N}}.
"""

import asyncio
import json
import os
import sys
import threading
import time
import traceback

URL = os.environ["CLIENT_URL"]
HOST, PORT = os.environ["CLIENT_HOST"], int(os.environ["CLIENT_PORT"])
USER, DATABASE = os.environ["CLIENT_USER"], os.environ["CLIENT_DATABASE"]
PASSWORD = os.environ.get("CLIENT_PASSWORD")  # none through leasehold
LARGE = int(os.environ["LARGE_MB"]) * 1024 * 1024
RECOMMENDED = os.environ.get("POOL_SETTINGS") == "recommended"
LIFETIME = float(os.environ.get("POOL_LIFETIME", 900))  # seconds
WORKERS = 8
PAUSE = 0.2  # seconds, the longest
# A lock says that a statement runs: pg_stat_activity shows the sessions of one's own role only.
SLEEP = "SELECT pg_advisory_xact_lock(7), pg_sleep(30)"
SLEEPERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
WHO = "SELECT current_user, current_database()"
TYPES = ("SELECT concat_ws('|', {0}::bool, {1}::int8, {2}::numeric, {3}::float8, {4}::text, {5}::bytea, {6}::date, "
         "{7}::timestamptz, {8}::uuid, {9}::jsonb, {10}::int4[], coalesce({11}::text, ''))")


def tell(step, **said):
    print(json.dumps({"step": step, **said}), flush=True)


def run(steps):
    """Runs functions of no arguments, each named as its step, perhaps with a `_` behind it; one that fails keeps no other from running."""
    for step in steps:
        name = step.__name__.rstrip("_")
        try:
            tell(name, result=step())
        except Exception as error:
            traceback.print_exc()
            tell(name, failed=f"{type(error).__name__}: {error}".strip()[:300])


def run_async(steps):
    """The same for coroutine functions, all in one event loop."""
    async def each():
        for step in steps:
            name = step.__name__.rstrip("_")
            try:
                tell(name, result=await step())
            except Exception as error:
                traceback.print_exc()
                tell(name, failed=f"{type(error).__name__}: {error}".strip()[:300])
    asyncio.run(each())


def sqlstate(error):
    """The SQLSTATE of an error of any driver, or its kind and the first line of its text."""
    for at in (error, getattr(error, "orig", None), getattr(error, "__cause__", None)):
        for name in ("sqlstate", "pgcode"):
            code = getattr(at, name, None)
            if code:
                return code
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


async def in_tasks(stop, seen, transact):
    """WORKERS tasks that await `transact()` again and again."""
    async def work(number):
        step = 0
        while not stop.is_set():
            try:
                await transact()
                seen.work()
            except Exception as error:
                seen.error(error)
            step += 1
            await asyncio.sleep(pause(number, step))
    await asyncio.gather(*(work(number) for number in range(WORKERS)))


def pause(number, step):
    return PAUSE * ((number * 7 + step * 3) % 10) / 10


def main(scenario, pool):
    """`scenario()` runs the steps; `pool(stop, seen)` works until the event `stop` is set."""
    if sys.argv[1:] != ["pool"]:
        return scenario()
    stop, seen = threading.Event(), Seen()
    working = threading.Thread(target=pool, args=(stop, seen))
    working.start()
    print("working", flush=True)
    sys.stdin.read()
    stop.set()
    working.join()
    print(json.dumps({"worked": seen.worked, "errors": seen.errors}), flush=True)


class Seen:
    """What an app sees of its pool."""

    def __init__(self):
        self.lock, self.worked, self.errors = threading.Lock(), 0, {}

    def work(self):
        with self.lock:
            self.worked += 1

    def error(self, error):
        code = sqlstate(error)
        with self.lock:
            self.errors[code] = self.errors.get(code, 0) + 1


def in_threads(stop, seen, transact):
    """WORKERS threads that call `transact()` again and again."""
    def work(number):
        step = 0
        while not stop.is_set():
            try:
                transact()
                seen.work()
            except Exception as error:
                seen.error(error)
            step += 1
            time.sleep(pause(number, step))
    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
