"""Pools of connections through rotations: what an app sees with the settings that docs/pools.md recommends, and without.

Leases live 16 s, a credential is replaced every 4 s, and each generation is drained in the last 4 s of its life; the recommended
lifetime of a connection is a third of the lease. An app of eight workers pauses for up to 200 ms between transactions.
"""

import json
import subprocess
import threading
import time

import stage
from demo import Broken, expect

LEASE, ROTATE_AFTER, DRAIN = 16, 4, 4  # seconds
LIFETIME = LEASE / 3
STOPS_WITHIN = 60
FLAGS = ("--rotate-after", f"{ROTATE_AFTER}s", "--drain", f"{DRAIN}s")


class Load:
    """One client at work on its pool."""

    def __init__(self, client, settings, environment):
        command, needs = client.start()
        self.name, self.settings = client.name, settings
        self.process = subprocess.Popen(
            [*command, "pool"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**environment, **needs, "LARGE_MB": "1", "POOL_SETTINGS": settings, "POOL_LIFETIME": str(LIFETIME)})
        self.errors = []
        self.reader = threading.Thread(target=lambda: self.errors.extend(self.process.stderr))
        self.reader.start()

    def stop(self):
        """How many transactions worked, and the errors; a process that has ended by itself is an error of its own."""
        early = self.process.poll()
        try:
            out, _ = self.process.communicate(timeout=STOPS_WITHIN) if early is None else (self.process.stdout.read(), None)
        except (subprocess.TimeoutExpired, ValueError):
            self.process.kill()
            out, early = "", "killed, as it did not end"
        self.process.wait()
        self.reader.join()
        told = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        if early is not None or not told:
            return {"worked": 0, "errors": {f"the process ended ({early})": 1}, "said": "".join(self.errors)[-1000:]}
        return told[0]


def run(binary, clients, seconds, say):
    """{client: {settings: what it saw}}, and how many rotations and closes there were."""
    seen = {}
    with stage.Stage(binary, "system", FLAGS, DEFAULT_TTL=f"{LEASE}s", MAX_TTL=f"{LEASE}s") as there:
        environment = there.environment(through=True)
        before = there.count("rotations_total")
        for group in (clients[at:at + 3] for at in range(0, len(clients), 3)):
            loads = [Load(client, settings, environment) for client in group for settings in ("recommended", "bare")]
            time.sleep(seconds)
            for load in loads:
                saw = seen.setdefault(load.name, {})[load.settings] = load.stop()
                say(f"{load.name}, {load.settings}: {saw}")
        rotations = there.count("rotations_total") - before
        closed = there.count("sessions_closed_total", 'cause="drain"')
        expect(rotations >= seconds / ROTATE_AFTER / 2, f"only {rotations:.0f} rotations")
        expect(closed > 0, "leasehold has closed no session: this shows nothing")
    return seen, rotations, closed


def faults(seen):
    """With the recommended settings an app must see no error, and must have worked."""
    return [f"{name}: {saw['recommended']}" for name, saw in seen.items()
            if saw["recommended"]["errors"] or saw["recommended"]["worked"] < 50]


def table(seen, earlier=()):
    """With the lines that the page has of pools that were not run."""
    lines = {line.removeprefix("| ").split(" | ")[0]: line for line in earlier}
    for name, saw in seen.items():
        counts = [f"{saw[settings]['worked']:,}, {sum(saw[settings]['errors'].values())}" for settings in ("recommended", "bare")]
        which = ", ".join(f"`{error}` {count}" for error, count in sorted(saw["bare"]["errors"].items()))
        lines[name] = f"| {name} | {counts[0]} | {counts[1]} | {which} |"
    return "\n".join(["| pool of | transactions, errors as recommended | transactions, errors without | |", "|---|---|---|---|", *lines.values()])
