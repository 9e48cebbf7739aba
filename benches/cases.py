"""What is measured: each case is what one endpoint does in one round, and gives {measure: value}."""

import concurrent.futures
import contextlib
import os
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from client import Client
from endpoints import Failed

import install  # in tests/bench, which endpoints puts on the path

PIPELINE = r"""\set aid random(1, 100000 * :scale)
\startpipeline
""" + "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n" * 10 + r"""\endpipeline
"""


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def pgbench(endpoint, arguments, seconds, clients, **options):
    # pgbench's time begins before its clients are connected, which takes seconds where they are many.
    seconds += clients // 50
    command = [install.client("pgbench"), "-n", "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(seconds), *arguments]
    return run(command, env=endpoint.environment(), **options)


def transactions(endpoint, title, arguments, seconds, clients, per=1, **options):
    """Transactions a second, and what each costs the proxy; `per` statements make one."""
    before = endpoint.cpu()
    said = pgbench(endpoint, arguments, seconds, clients, **options)
    used = endpoint.cpu() - before
    done = int(re.search(r"actually processed: (\d+)", said).group(1)) * per
    values = {title: rate(said) * per}
    if endpoint.process is not None:
        values[f"proxy CPU, {title}"] = used * 1e6 / done
    return values


def warm_up(endpoint):
    """Caches fill, and PgBouncer opens its server sessions, one after the other, for all rounds to come."""
    run([install.client("pgbench"), "-n", "-S", "-c", "64", "-j", "2", "-t", "20"], env=endpoint.environment())


def rate(said):
    found = re.search(r"^tps = ([\d.]+)", said, re.M)
    if found is None:
        raise Failed(f"pgbench ran for too short to say anything:\n{said}")
    return float(found.group(1))


def select_only(endpoint, seconds, clients, title=None):
    return transactions(endpoint, title or f"select-only, {clients} clients", ["-S", "-M", "prepared"], seconds, clients)


def simple(endpoint, seconds):
    return transactions(endpoint, "select-only, simple, 8 clients", ["-S", "-M", "simple"], seconds, 8)


def tpc_b(endpoint, seconds):
    return transactions(endpoint, "TPC-B, 8 clients", ["-M", "prepared"], seconds, 8)


def pipelined(endpoint, seconds, scale):
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(PIPELINE)
        script.flush()
        arguments = ["-M", "extended", "-f", script.name, "-D", f"scale={scale}"]
        return transactions(endpoint, "select-only, pipelined by ten, 8 clients", arguments, seconds, 8, per=10)


def on_one_cpu(endpoint, seconds, postgres):
    """One client; it, the server and the proxy share one processor: what a transaction costs, with no wake across processors."""
    pids = descendants(postgres["pid"]) + ([endpoint.process.pid] if endpoint.process else [])
    with pinned(pids):
        return transactions(endpoint, "select-only, 1 client, one CPU", ["-S", "-M", "prepared"], seconds, 1,
                            preexec_fn=lambda: os.sched_setaffinity(0, {0}))


@contextlib.contextmanager
def pinned(pids):
    """All threads of these processes on the first processor, and back again."""
    everywhere = os.sched_getaffinity(0)
    set_affinity(pids, {min(everywhere)})
    try:
        yield
    finally:
        set_affinity(pids, everywhere)


def set_affinity(pids, processors):
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(task), processors)


def descendants(pid):
    """The process and all that come from it; none, where it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [pid] + [found for child in file.read().split() for found in descendants(int(child))]
    return []


def bulk(endpoint, title, move):
    client = Client(endpoint)
    before, began = endpoint.cpu(), time.monotonic()
    moved = move(client)
    took, used = time.monotonic() - began, endpoint.cpu() - before
    client.close()
    values = {title: moved / 1e6 / took}
    if endpoint.process is not None:
        values[f"proxy CPU, {title}"] = used / (moved / 1e9)
    return values


def wide_read(endpoint, megabytes, title="wide read"):
    sql = f"select repeat('x', 65536) from generate_series(1, {megabytes * 16})"
    return bulk(endpoint, title, lambda client: client.read_all(sql))


def narrow_read(endpoint, megabytes):
    # A row is 11 bytes of values and 15 of framing.
    sql = f"select 1000000 + n from generate_series(1, {megabytes * 45_000}) n"
    return bulk(endpoint, "narrow read", lambda client: client.read_all(sql))


def copy_out(endpoint, megabytes):
    sql = f"copy (select repeat('x', 8190) from generate_series(1, {megabytes * 128})) to stdout"
    return bulk(endpoint, "COPY out", lambda client: client.read_all(sql))


def copy_in(endpoint, megabytes):
    sql = "copy copied_in from stdin where false"
    return bulk(endpoint, "COPY in", lambda client: client.copy_in(sql, megabytes << 20))


def connects(endpoint, count, title, pause=0.002):
    """One after the other, with a pause behind each (seconds); the client is this program, so libpq's own cost is not in it."""
    spans = sorted(connect_spans(endpoint, count, pause))
    return {f"{title}, p50": statistics.median(spans), f"{title}, p99": percentile(spans, 0.99)}


def connects_at_once(endpoint, count, title):
    """Eight clients at once, each a process."""
    with concurrent.futures.ProcessPoolExecutor(8) as pool:
        parts = [pool.submit(connect_spans, endpoint.over(process=None), count // 8) for _ in range(8)]
        spans = sorted(span for part in parts for span in part.result())
    return {f"{title}, p50": statistics.median(spans), f"{title}, p99": percentile(spans, 0.99)}


def connect_spans(endpoint, count, pause=0.002):
    spans = []
    for _ in range(count):
        began = time.perf_counter()
        client = Client(endpoint)
        client.query("select 1")
        spans.append((time.perf_counter() - began) * 1e3)
        client.close()
        time.sleep(pause)  # the server's process of the last one ends meanwhile
    return spans


def connect_rate(endpoint, seconds, clients):
    """Connects a second by libpq, a query each."""
    said = pgbench(endpoint, ["-C", "-S"], seconds, clients)
    return {f"connects, {clients} at once": rate(said)}


def latencies(endpoint, arguments, seconds, clients):
    """Each transaction's time in ms, sorted."""
    with tempfile.TemporaryDirectory() as directory:
        pgbench(endpoint, [*arguments, "-l", "--log-prefix", os.path.join(directory, "log")], seconds, clients)
        spans = []
        for name in os.listdir(directory):
            with open(os.path.join(directory, name)) as file:
                spans.extend(int(line.split()[2]) / 1e3 for line in file)
    return sorted(spans)


def through_rotations(endpoint, seconds):
    """Beside the same load without rotations this shows what a rotation costs those who do not take part in it."""
    spans = latencies(endpoint, ["-S", "-M", "prepared"], seconds, 8)
    return {"under load, p99": percentile(spans, 0.99), "under load, worst": spans[-1]}


def beside_a_copy(endpoint, seconds, megabytes):
    """Twenty clients with 400 transactions a second in all, while another one reads as fast as it can."""
    stop = threading.Event()

    def read():
        client = Client(endpoint)
        while not stop.is_set():
            client.read_all(f"copy (select repeat('x', 8190) from generate_series(1, {megabytes * 128})) to stdout")
        client.close()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        spans = latencies(endpoint, ["-S", "-M", "prepared", "-R", "400"], seconds, 20)
    finally:
        stop.set()
        reader.join()
    return {"beside a COPY, p50": percentile(spans, 0.5), "beside a COPY, p99": percentile(spans, 0.99)}


def percentile(spans, part):
    return spans[min(len(spans) - 1, int(len(spans) * part))]


def cold_start(endpoint):
    """From the start of the process to its first readiness, Vault and PostgreSQL up, in ms."""
    endpoint.stop()
    began = time.perf_counter()
    with open(os.devnull, "w") as null:
        endpoint.process = subprocess.Popen(endpoint.command, stdin=subprocess.DEVNULL, stdout=null, stderr=null)
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{endpoint.http}/readyz", timeout=5).status == 200:
                return {"start to ready": (time.perf_counter() - began) * 1e3}
        if time.perf_counter() - began > 30:
            raise Failed("leasehold is not ready after 30 s")
        time.sleep(0.001)


def idle_sessions(endpoint, points, wait_for_backends):
    """What sessions that do nothing cost, in a process that has just started: {sessions: (KiB resident, files, CPU of a second)}."""
    endpoint.stop()
    wait_for_backends()
    endpoint.start()
    clients, seen = [], {}
    for count in points:
        while len(clients) < count:
            clients.append(Client(endpoint))
            clients[-1].query("select 1")
        time.sleep(1)
        before = endpoint.cpu()
        time.sleep(5)
        seen[count] = (endpoint.resident(), endpoint.files(), (endpoint.cpu() - before) / 5)
    for client in clients:
        client.close()
    endpoint.stop()
    wait_for_backends()
    return seen


def crowd(endpoint, count):
    """What a crowd costs a process that has just started: [(what, KiB resident, files)]."""
    endpoint.stop()
    endpoint.start()
    seen = []

    def look(what):
        time.sleep(2)
        seen.append((what, endpoint.resident(), endpoint.files()))

    look("nobody")
    clients = []
    for goal in (count // 10, count):
        while len(clients) < goal:
            clients.append(Client(endpoint))
            clients[-1].query("select 1")
        look(f"{goal:,} idle sessions")
    try:
        Client(endpoint)
    except RuntimeError as refused:
        if b"C53300" not in refused.args[0]:
            raise
    else:
        raise RuntimeError("there is a session more than may be")
    look("one more came, and got 53300")
    for client in clients:
        client.query("select 1")
    look("each has asked something again")
    for client in clients:
        client.close()
    while endpoint.files() > count // 10:
        time.sleep(0.1)
    look("they have gone")
    silent = [socket.create_connection((endpoint.host, endpoint.port)) for _ in range(count)]
    while endpoint.files() < count:
        time.sleep(0.1)
    look(f"{count:,} clients that say nothing")
    for client in silent:
        client.close()
    endpoint.stop()
    return seen


def burst(endpoint, sessions, wait_for_backends):
    """Memory with sessions that have logged in at once, and when they have been gone for a while, in MiB."""
    endpoint.stop()
    wait_for_backends()
    endpoint.start()
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        clients = list(pool.map(lambda _: Client(endpoint), range(sessions)))
    high = endpoint.resident() / 1024
    for client in clients:
        client.close()
    wait_for_backends()
    time.sleep(60)
    low = endpoint.resident() / 1024
    endpoint.stop()
    return {f"memory, {sessions} logged in at once": high, "memory, a minute after they went": low}
