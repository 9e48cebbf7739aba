#!/usr/bin/env python3
"""Fifty real leasehold processes on a real OpenBao, beside the same fleet simulated.

    python3 benches/fleet_processes.py [--processes 50] [--binary target/release/leasehold] [--out docs/fleet]

With leases of a minute, so that there is something to see in six minutes: all processes start at once; at 120 s OpenBao is sealed
for 20 s; at 240 s every process is told to rotate. What each asks of Vault is read from its metrics, second by second. The
simulation (`leasehold simulate processes`) has the same fleet, leases and times. Writes a table and one plot with both.
"""

import argparse
import html
import json
import os
import re
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "demo"))
import demo  # noqa: E402  (in tests/demo)

SECONDS = 360
SEALED = (120, 140)
ROTATION = 240
BIN = 5
COUNT = re.compile(r'^leasehold_vault_requests_total\{[^}]*\} (\d+)', re.M)


def asked(port):
    """How many requests a process has sent to Vault."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as reply:
            return sum(int(count) for count in COUNT.findall(reply.read().decode()))
    except OSError:
        return 0


def call(show, method, path, **body):
    request = urllib.request.Request(f"{show.vault['addr']}/v1/{path}", json.dumps(body).encode(), method=method,
                                     headers={"X-Vault-Token": show.vault["root_token"]})
    urllib.request.urlopen(request, timeout=10).close()


class Fleet:
    def __init__(self, show, binary, count):
        with open(os.path.join(show.login, "role_id")) as file:
            role_id = file.read().strip()
        self.binary, self.ports, self.processes = binary, [], []
        for number in range(count):
            listen, http, admin = (demo.free_port(0) for _ in range(3))
            log = open(os.path.join(show.dir, f"leasehold-{number}.log"), "w")
            command = [binary, "run", "--listen", f"127.0.0.1:{listen}", "--http", f"127.0.0.1:{http}", "--admin",
                       f"127.0.0.1:{admin}", "--upstream", show.upstream(), "--vault-addr", show.vault["addr"], "--vault-path",
                       "database/creds/app-role", "--vault-auth-method", "approle", "--vault-auth-role-id", role_id,
                       "--vault-auth-secret-id-file", os.path.join(show.login, "secret_id")]
            self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                   env={"PATH": os.environ["PATH"], "HOME": show.dir}))
            self.ports.append((http, admin))

    def asked(self):
        return sum(asked(http) for http, _ in self.ports)

    def rotate(self):
        commands = [subprocess.Popen([self.binary, "rotate", "--admin", f"127.0.0.1:{admin}"], stdout=subprocess.DEVNULL)
                    for _, admin in self.ports]
        for command in commands:
            command.wait()

    def close(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


def real(binary, count):
    show = demo.Demo()
    totals = []
    with show.undo:
        show.start_servers(vault={"storage": "raft"}, DEFAULT_TTL="60s", MAX_TTL="10m", TOKEN_PERIOD="60s")
        began = time.monotonic()
        fleet = Fleet(show, binary, count)
        show.undo.callback(fleet.close)
        sealed = rotated = False
        while (now := time.monotonic() - began) < SECONDS:
            if not sealed and now >= SEALED[0]:
                sealed = True
                call(show, "PUT", "sys/seal")
            if sealed is True and now >= SEALED[1]:
                sealed = None
                call(show, "PUT", "sys/unseal", key=show.vault["unseal_key"])
            if not rotated and now >= ROTATION:
                rotated = True
                fleet.rotate()
            time.sleep(max(0.0, began + (len(totals) + 1) * BIN - time.monotonic()))
            totals.append((time.monotonic() - began, fleet.asked()))
    return [(later - sooner) / (at - before) for (before, sooner), (at, later) in zip([(0, 0), *totals], totals)]


def plot(real_rates, simulated):
    most = max([*real_rates, *simulated]) * 1.1
    width, tall, left = 720, 200, 60
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {tall + 80}" role="img">'
             "<title>Fifty processes, and the same simulated</title><style>text{font:12px sans-serif;fill:#333}"
             "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>",
             '<text x="8" y="20" font-weight="bold">requests a second of fifty processes, real and simulated</text>',
             f'<path fill="none" stroke="#999" d="M{left} 36V{36 + tall}H{left + width}"/>',
             f'<text x="{left - 6}" y="46" text-anchor="end">{most:.0f}</text>',
             f'<text x="{left}" y="{tall + 54}">0 s</text><text x="{left + width}" y="{tall + 54}" text-anchor="end">{SECONDS} s</text>']
    for name, values, colour, x in (("real", real_rates, "#e69f00", 120), ("simulated", simulated, "#0072b2", 180)):
        points = "L".join(f"{left + (index + 0.5) * BIN / SECONDS * width:.1f} {36 + tall - value / most * tall:.1f}"
                          for index, value in enumerate(values) if (index + 0.5) * BIN <= SECONDS)
        parts.append(f'<path fill="none" stroke="{colour}" stroke-width="1.5" d="M{points}"/>')
        parts.append(f'<text x="{x}" y="{tall + 54}" style="fill:{colour}">{html.escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--binary", default=os.path.join(ROOT, "target", "release", "leasehold"))
    parser.add_argument("--out", default=os.path.join(ROOT, "docs", "fleet"))
    parser.add_argument("--rates", help="a file for the real rates: written, or read if it is there, so that nothing is started")
    options = parser.parse_args()
    if options.rates and os.path.exists(options.rates):
        with open(options.rates) as file:
            rates = json.load(file)
    else:
        rates = real(os.path.abspath(options.binary), options.processes)
    if options.rates:
        with open(options.rates, "w") as file:
            json.dump(rates, file)
    text = subprocess.run([options.binary, "simulate", "processes", "--sidecars", str(options.processes), "--rates"],
                          check=True, capture_output=True, text=True).stdout
    simulated = [float(word) for word in text.split()]
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "processes.svg"), "w") as file:
        file.write(plot(rates, simulated))
    print("| | real | simulated |\n|---|---:|---:|")
    # A rotation takes its time, and the look at the metrics waits for it.
    spans = {"start, 0 to 10 s": (0, 10), "calm, 20 to 120 s": (20, 120), "seal and return, 120 to 180 s": (120, 180),
             "calm, 180 to 235 s": (180, 235), "rotation, 235 to 260 s": (235, 260), "calm, 260 to 360 s": (260, 360)}
    for name, (begin, end) in spans.items():
        one, other = (sum(values[begin // BIN:end // BIN]) / ((end - begin) / BIN) for values in (rates, simulated))
        print(f"| {name} | {one:.1f} | {other:.1f} |")


if __name__ == "__main__":
    main()
