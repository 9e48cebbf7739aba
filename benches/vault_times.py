#!/usr/bin/env python3
"""How long a real OpenBao takes over what leasehold asks of it: the parameters of `leasehold simulate`.

    python3 benches/vault_times.py [--requests 400]

OpenBao with file storage and PostgreSQL are started by tests/bench/servers.py and set up by deploy/vault/setup.sh. Each kind of
request is sent one at a time, which gives its time, and by 16 clients at once, which gives what is served in a second: where
the two rates are equal, the requests are served one after the other. Prints a Markdown table. Python's standard library only.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "demo"))
import demo  # noqa: E402  (in tests/demo)

CLIENTS = 16


class Vault:
    """Connections that are kept, one for each thread."""

    def __init__(self, address):
        self.host = urllib.parse.urlsplit(address).netloc
        self.local = threading.local()

    def ask(self, method, path, token=None, **body):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(self.host)
        headers = {"X-Vault-Token": token} if token else {}
        self.local.connection.request(method, f"/v1/{path}", json.dumps(body) if body else None, headers)
        response = self.local.connection.getresponse()
        text = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {text.decode()}")
        return json.loads(text) if text else {}


class Times:
    def __init__(self, vault, root_token, login, requests):
        self.vault, self.root, self.requests = vault, root_token, requests
        with open(os.path.join(login, "role_id")) as role_id, open(os.path.join(login, "secret_id")) as secret_id:
            self.login = {"role_id": role_id.read().strip(), "secret_id": secret_id.read().strip()}
        self.rows = []

    def log_in(self):
        return self.vault.ask("POST", "auth/approle/login", **self.login)["auth"]["client_token"]

    def credential(self, token):
        return token, self.vault.ask("GET", "database/creds/app-role", token)["lease_id"]

    def measure(self, name, request, things):
        """Half of the things one by one, half by many at once. Gives what came of each."""
        half = len(things) // 2
        came, spans = [], []
        for thing in things[:half]:
            began = time.monotonic()
            came.append(request(thing))
            spans.append(time.monotonic() - began)
        rest = list(things[half:])
        lock = threading.Lock()

        def work():
            while True:
                with lock:
                    if not rest:
                        return
                    thing = rest.pop()
                one = request(thing)
                with lock:
                    came.append(one)

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = (len(things) - half) / (time.monotonic() - began)
        spans.sort()
        self.rows.append((name, statistics.median(spans) * 1000, spans[int(len(spans) * 0.99)] * 1000, half / sum(spans), rate))
        return came

    def run(self):
        ask, count = self.vault.ask, self.requests
        tokens = self.measure("login (AppRole)", lambda _: self.log_in(), range(count))
        self.measure("look-up of the token", lambda token: ask("GET", "auth/token/lookup-self", token), tokens)
        self.measure("renewal of the token", lambda token: ask("POST", "auth/token/renew-self", token, increment=0), tokens)
        leases = self.measure("credential", self.credential, tokens)
        self.measure("renewal of the lease", lambda lease: ask("PUT", "sys/leases/renew", lease[0], lease_id=lease[1]), leases)
        half = len(leases) // 2
        self.measure("revocation of the lease, awaited",
                     lambda lease: ask("PUT", "sys/leases/revoke", self.root, lease_id=lease[1], sync=True), leases[:half])
        self.measure("revocation of the token", lambda lease: ask("POST", "auth/token/revoke-self", lease[0]), leases[half:])
        return leases[half:]

    def table(self):
        lines = ["| | one at a time: median | 99th | a second | 16 at once: a second |", "|---|---:|---:|---:|---:|"]
        for name, median, most, alone, together in self.rows:
            lines.append(f"| {name} | {median:.1f} ms | {most:.1f} ms | {alone:.0f} | {together:.0f} |")
        return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=400)
    options = parser.parse_args()
    show = demo.Demo()
    with show.undo:
        show.start_servers()
        times = Times(Vault(show.vault["addr"]), show.vault["root_token"], show.login, options.requests)
        began = time.monotonic()
        times.run()
        left = int(show.as_superuser("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"))
        while int(show.as_superuser("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'")):
            time.sleep(0.05)
        print(times.table())
        print(f"\n{left} roles were left when the last token was revoked; all were gone {time.monotonic() - began:.1f} s after the start")


if __name__ == "__main__":
    main()
