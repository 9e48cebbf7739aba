#!/usr/bin/env python3
"""Where leasehold's cycles go: select-only through it, under perf where this machine has it, else under callgrind.

    make profile                                   8 clients, as many threads as there are CPUs
    python3 benches/profile.py --clients 64 --threads 1

Prints the share of each library and of the costliest functions. perf samples the time of user and kernel; callgrind counts
the instructions of the program alone, at a fiftieth of its speed.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time

import run
from endpoints import DEV, Failed, Leasehold

import install  # in tests/bench, which endpoints puts on the path

WARM_UP = 1  # seconds, before samples are taken
LINES = 40


def load(endpoint, clients, seconds):
    command = [install.client("pgbench"), "-n", "-S", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds)]
    return subprocess.Popen(command, env=endpoint.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def report(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    print("\n".join([line.rstrip() for line in done.stdout.splitlines() if line.strip()][:LINES]), flush=True)


def by_perf(endpoint, options):
    samples = os.path.join(DEV, "profile.perf")
    pgbench = load(endpoint, options.clients, options.seconds + WARM_UP)
    time.sleep(WARM_UP)
    subprocess.run(["perf", "record", "-q", "-o", samples, "-F", "4000", "-p", str(endpoint.process.pid), "--",
                    "sleep", str(options.seconds)], check=True)
    pgbench.wait()
    for columns in ("dso", "dso,symbol"):
        report(["perf", "report", "-q", "--stdio", "-i", samples, "--sort", columns])


def by_callgrind(endpoint, options):
    load(endpoint, options.clients, options.seconds + WARM_UP).wait()
    endpoint.stop()  # It writes its counts when it ends.
    report(["callgrind_annotate", "--auto=no", os.path.join(DEV, "profile.callgrind")])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--binary", help="a leasehold that is built already")
    parser.add_argument("--callgrind", action="store_true", help="not perf, even where it is there")
    options = parser.parse_args()
    callgrind = options.callgrind or shutil.which("perf") is None
    if callgrind and shutil.which("valgrind") is None:
        raise Failed("neither perf nor valgrind is installed (Debian: linux-perf, valgrind)")

    os.makedirs(DEV, exist_ok=True)
    with contextlib.ExitStack() as cleanup:
        servers = run.Servers()
        cleanup.callback(servers.close)
        program = options.binary or run.build()
        postgres = servers.ask(start="postgres", name="postgres", ssl=True, conf={"max_connections": "1000"})
        openbao = servers.ask(start="openbao", name="openbao")
        home = servers.ask(dir=True)["dir"]
        login = run.prepare(postgres, openbao, home, scale=10)
        flags = ["--threads", str(options.threads)]
        # valgrind writes machine code into memory, which seccomp forbids.
        flags += ["--hardening", "off"] if callgrind else []
        endpoint = Leasehold(program, postgres, openbao, login, home, flags=flags)
        if callgrind:
            endpoint.command = ["valgrind", "-q", "--tool=callgrind",
                                f"--callgrind-out-file={os.path.join(DEV, 'profile.callgrind')}", *endpoint.command]
        cleanup.callback(endpoint.stop)
        endpoint.start()
        (by_callgrind if callgrind else by_perf)(endpoint, options)


if __name__ == "__main__":
    try:
        main()
    except (Failed, install.Missing) as error:
        sys.exit(f"profile: {error}")
