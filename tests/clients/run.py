#!/usr/bin/env python3
"""Real clients, each run directly and through leasehold, and what differs. Prints a table; exit code 1 if a client is not
served as it is directly.

    make clients                                       all of them, on all servers; writes the rows into docs/compatibility.md
    python3 tests/clients/run.py --only psql,asyncpg   some, with commas
    python3 tests/clients/run.py --servers 18          on some servers
    python3 tests/clients/run.py --servers none        only the pools, through rotations (pools.py)
    python3 tests/clients/run.py --list                what there is

Every client runs the steps of scenario.json in its own language, with its own features: first directly, with a password,
then through leasehold, without one. What a step tells must be what scenario.json expects, and the same both times.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import stage  # first: it puts tests/bench on the path
import pools
from clients import CLIENTS, REPLICATION, SOME
from demo import Broken
import install

HERE = os.path.dirname(os.path.abspath(__file__))
WITHIN = 120  # seconds, for one run of a client
# What an app can tell of leasehold: the role that it is logged in as, and the settings that only its own role would have.
MAY_DIFFER = {"session_user", "lock_timeout"}


class Row:
    """One client on one server. What is not `as_expected` need only be the same directly and through leasehold."""

    def __init__(self, client, server, direct, through, large, as_expected=True, may_differ=frozenset()):
        self.client, self.server = client.name, server
        self.version = direct.pop("version", {}).get("result", "")
        through.pop("version", None)
        self.faults, self.differs, self.passed, self.steps = [], [], 0, list(direct)
        if not direct:
            self.faults.append("it ran no step")
        if list(through) != list(direct):
            self.faults.append(f"steps directly: {list(direct)}, through leasehold: {list(through)}")
        for step in direct:
            expected = self._expected(client, step, direct[step].get("result")) if as_expected else direct[step].get("result")
            expected = [large, True] if expected == "LARGE" else expected
            self._compare(step, direct[step], through.get(step, {}), expected, may_differ)

    @staticmethod
    def _expected(client, step, told):
        words = SCENARIO.get(step, {})
        return words.get(client.says, words.get("expect", told))

    def _compare(self, step, direct, through, expected, may_differ):
        if step == "identity" and "result" in direct:
            left, right = json.loads(direct["result"]), json.loads(through.get("result") or "{}")
            self.differs = sorted(key for key in left if left[key] != right.get(key))
            fault = set(self.differs) - MAY_DIFFER - may_differ
            fault = fault and f"{sorted(fault)}: {direct} directly, {through} through leasehold"
        elif "result" not in direct or direct["result"] != expected:
            fault = f"directly already: {direct}, and {expected} is expected"
        else:
            fault = direct != through and f"{direct['result']} directly, {through} through leasehold"
        if fault:
            self.faults.append(f"{self.client} on {self.server}: {step}: {fault}")
        else:
            self.passed += 1


def play(client, environment, large):
    """{step: what it told}, of one run."""
    command, needs = client.start()
    started = time.monotonic()
    try:
        done = subprocess.run(command, env={**environment, **needs, "LARGE_MB": str(large)}, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN, cwd=install.DEV)
        out, errors, how = done.stdout, done.stderr, f"ended with {done.returncode}"
    except subprocess.TimeoutExpired as late:
        out, errors, how = (late.stdout or b"").decode(), (late.stderr or b"").decode(), f"did not end within {WITHIN} s"
    told = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if how != "ended with 0" or any("failed" in step for step in told):
        say(f"{client.name} {how}:\n{errors[-4000:]}")
        if how != "ended with 0":
            told.append({"step": "end", "failed": how})
    say(f"{client.name}: {len(told)} steps in {time.monotonic() - started:.1f} s")
    return {step.pop("step"): step for step in told}


def matrix(options):
    """The rows, and what kept servers from having one; the others have theirs."""
    rows, broken = [], []
    for kind in options.servers:
        try:
            with stage.Stage(options.binary, kind) as there:
                rows += rows_on(there, kind, options)
        except Broken as error:
            broken.append(f"{kind}: {error}")
    return rows, broken


def rows_on(there, kind, options):
    server = there.version()
    for client in clients_on(kind, options):
        direct = play(client, there.environment(through=False), options.large)
        through = play(client, there.environment(through=True), options.large)
        row = Row(client, server, direct, through, options.large, as_expected=kind != "pgbouncer",
                  # A role that is not SET to its group is itself.
                  may_differ={"current_user"} if kind.startswith("replication") else set())
        row.faults += (f"{client.name} on {server}: {fault}" for fault in there.faults())
        yield row


def clients_on(kind, options):
    few = SOME.get(kind)
    return [client for client in options.clients if (client.name in few if few else client.name not in REPLICATION)]


def build():
    """The debug build, which the tests use too."""
    subprocess.run(["cargo", "build", "--locked", "--bin", "leasehold"], check=True, cwd=stage.ROOT)
    told = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], check=True, cwd=stage.ROOT,
                          capture_output=True, text=True).stdout
    return os.path.join(json.loads(told)["target_directory"], "debug", "leasehold")


HEAD = ["| client | version | server | steps | passed | differs from a direct connection |", "|---|---|---|---|---|---|"]


def table(rows, earlier=()):
    """With the lines that the page has of clients and servers that were not run; sorted, so that it is the same in any order of runs."""
    lines = {place(line): line for line in [*earlier, *map(line_of, rows)]}
    return "\n".join(HEAD + [lines[at] for at in sorted(lines) if at[-1] >= 0])


def line_of(row):
    differs = ", ".join(f"`{key}`" for key in row.differs) or "nothing"
    return f"| {row.client} | {row.version} | {row.server} | {len(row.steps)} | {row.passed} | {differs} |"


def place(line):
    """By the kind of the server, its major version, and the client; -1 is one that is there no more."""
    client, _, server = line.removeprefix("| ").split(" | ")[:3]
    version, _, kind = server.partition(", ")
    names = [each.name for each in CLIENTS]
    return ["", *stage.ADDED.values()].index(kind), int(version.split(".")[0]), names.index(client) if client in names else -1


def lines_of(page, name):
    """The rows of a table in a page of docs/, without its head."""
    with open(os.path.join(stage.ROOT, "docs", page)) as file:
        return file.read().partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0].splitlines()[3:]


def write(page, name, text):
    """Puts a table between its marks in a page of docs/."""
    path = os.path.join(stage.ROOT, "docs", page)
    with open(path) as file:
        before, _, rest = file.read().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not end:
        raise Broken(f"docs/{page} has no marks for {name}")
    with open(path, "w") as file:
        file.write(f"{before}<!-- {name} -->\n{text}\n{end}{after}")


def say(text):
    print(f"clients: {text}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="which clients, with commas")
    parser.add_argument("--servers", default="", help="which servers, with commas, or none")
    parser.add_argument("--binary", help="a leasehold that is built already")
    parser.add_argument("--pools", type=int, default=60, metavar="SECONDS", help="of load on each pool; 0: none")
    parser.add_argument("--large", type=int, default=100, help="MB of the large value")
    parser.add_argument("--write", action="store_true", help="write the rows into the tables of docs/")
    parser.add_argument("--print-binary", action="store_true", help="build leasehold, print where it is")
    parser.add_argument("--list", action="store_true", help="print the clients and the servers")
    options = parser.parse_args()
    names = [client.name for client in CLIENTS]
    if options.list:
        sys.exit(f"clients: {', '.join(names)}\nservers: {', '.join(stage.KINDS)}")
    if options.print_binary:
        sys.exit(print(build()))
    wanted = options.only.split(",") if options.only else names
    servers = {"": list(stage.KINDS), "none": []}
    options.servers = servers.get(options.servers, options.servers.split(","))
    unknown = sorted(set(wanted) - set(names) | set(options.servers) - set(stage.KINDS))
    if unknown:
        parser.error(f"not known: {', '.join(unknown)}")
    options.clients = [client for client in CLIENTS if client.name in wanted]
    return options


def main():
    options = arguments()
    options.binary = options.binary or build()
    rows, wrong = matrix(options)
    if rows:
        print(table(rows))
    wrong += [fault for row in rows for fault in row.faults]
    if options.pools:
        seen, rotations, closed = pools.run(options.binary, [client for client in options.clients if client.pool], options.pools, say)
        print(f"{pools.table(seen)}\n{rotations:.0f} rotations, {closed:.0f} sessions closed by drains")
        wrong += pools.faults(seen)
    if options.write and not wrong:
        if rows:
            write("compatibility.md", "matrix", table(rows, lines_of("compatibility.md", "matrix")))
        if options.pools:
            write("pools.md", "counts", pools.table(seen, lines_of("pools.md", "counts")))
    for fault in wrong:
        say(fault)
    return 1 if wrong else 0


with open(os.path.join(HERE, "scenario.json")) as file:
    SCENARIO = json.load(file)

if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Broken, install.Missing, subprocess.CalledProcessError) as error:
        sys.exit(f"clients: {error}")
