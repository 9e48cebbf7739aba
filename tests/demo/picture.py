#!/usr/bin/env python3
"""Takes docs/page.webp, the picture of the admin address's page that the README shows.

It runs the servers of the demo with leases of a minute, a route of its own for readers, clients that come and go, and a
lease that is revoked by hand; after five minutes Chromium takes the picture. What it needs is installed on demand.

    cargo build --release && python3 tests/demo/picture.py [docs/page.webp [target/release/leasehold]]
"""

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import demo
import install

MINUTES = 5
CONFIG = """
listen = ["127.0.0.1:{port}"]
http = "127.0.0.1:{http}"
admin = "127.0.0.1:{admin}"
[vault]
addr = "{vault}"
[vault.auth]
method = "approle"
role_id = "{role_id}"
secret_id_file = "{secret_id_file}"
[[route]]
name = "app"
user = "app"
drain = "15s"
upstream = "{upstream}"
vault_path = "database/creds/app-role"
[[route]]
name = "readonly"
user = "readonly"
upstream = "{upstream}"
vault_path = "database/creds/readonly-role"
"""
# No window, and no word to anybody but the page.
BROWSER = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
           "--force-color-profile=srgb", "--remote-debugging-pipe"]


class Scene(demo.Demo):
    """Two routes, and clients on them."""

    def bao(self, *arguments):
        environment = {"BAO_ADDR": self.vault["addr"], "BAO_TOKEN": self.vault["root_token"], "HOME": self.dir,
                       "PATH": os.environ["PATH"]}
        return demo.run([install.bao(), *arguments], quiet=True, env=environment)

    def start(self, binary):
        self.start_servers()
        self.binary = binary
        self.give_leases("app-role", "60s", "150s")
        self.give_leases("readonly-role", "90s", "6m")
        port, http, admin = (demo.free_port(0) for _ in range(3))
        with open(os.path.join(self.login, "role_id")) as file:
            role_id = file.read().strip()
        config = os.path.join(self.dir, "leasehold.toml")
        with open(config, "w") as file:
            file.write(CONFIG.format(port=port, http=http, admin=admin, vault=self.vault["addr"], role_id=role_id,
                                     secret_id_file=os.path.join(self.login, "secret_id"), upstream=self.upstream()))
        self.log, self.admin_addr, self.port = os.path.join(self.dir, "leasehold.log"), f"127.0.0.1:{admin}", port
        with open(self.log, "w") as log:
            self.leasehold = subprocess.Popen([self.binary, "run", "--config", config], stdin=subprocess.DEVNULL,
                                              stdout=log, stderr=log, env={"PATH": os.environ["PATH"], "HOME": self.dir})
        self.undo.callback(self.kill_leasehold)
        self.command("wait", "--max", "30s")

    def give_leases(self, role, ttl, max_ttl):
        kept = ("db_name", "creation_statements", "revocation_statements")
        data = json.loads(self.bao("read", "-format=json", f"database/roles/{role}"))["data"]
        path = os.path.join(self.dir, "role.json")
        with open(path, "w") as file:
            json.dump({**{key: data[key] for key in kept}, "default_ttl": ttl, "max_ttl": max_ttl}, file)
        self.bao("write", f"database/roles/{role}", f"@{path}")

    def clients(self, user, count, seconds):
        for _ in range(count):
            threading.Thread(target=self.come_and_go, args=(user, seconds), daemon=True).start()

    def come_and_go(self, user, seconds):
        url = f"postgresql://{user}@127.0.0.1:{self.port}/{demo.DATABASE}"
        while True:
            work = "SELECT 1;\n\\! sleep 1\n" * random.randint(*seconds)
            subprocess.run([install.client("psql"), "-wXAtq", url], input=work, text=True, capture_output=True,
                           env=demo.no_password(), check=False)
            time.sleep(0.3)


class Browser:
    """Chromium, driven through its DevTools pipe: descriptors 3 and 4, a zero byte after each message."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        command = [install.chromium(), *BROWSER, f"--user-data-dir={self.profile}"]
        self.process = subprocess.Popen(["sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1', *command],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.last, self.heard, self.page = 0, b"", {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.page = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def ask(self, method, **parameters):
        self.last += 1
        command = {"id": self.last, "method": method, "params": parameters, **self.page}
        self.process.stdin.write(json.dumps(command).encode() + b"\0")
        self.process.stdin.flush()
        while True:
            while b"\0" not in self.heard:
                read = os.read(self.process.stdout.fileno(), 1 << 20)
                demo.expect(read, "the browser has ended")
                self.heard += read
            message, self.heard = self.heard.split(b"\0", 1)
            answer = json.loads(message)
            if answer.get("id") == self.last:
                demo.expect("result" in answer, f"{method}: {answer}")
                return answer["result"]

    def picture(self, url, width, height):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=url)
        # Two answers of the page's own, and what is drawn of them.
        time.sleep(5)
        return base64.b64decode(self.ask("Page.captureScreenshot", format="webp", quality=88)["data"])

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(demo.ROOT, "docs", "page.webp")
    binary = sys.argv[2] if len(sys.argv) > 2 else os.path.join(demo.ROOT, "target", "release", "leasehold")
    install.ensure("postgres", "openbao", "chromium")
    scene = Scene()
    try:
        scene.start(binary)
        scene.clients("app", 6, (20, 200))
        scene.clients("app", 3, (2, 12))
        scene.clients("readonly", 4, (30, 90))
        demo.say(f"{MINUTES} minutes of clients at http://{scene.admin_addr}/")
        time.sleep(MINUTES * 60 - 80)
        scene.bao("lease", "revoke", "-prefix", "database/creds/app-role")
        time.sleep(80)
        browser = Browser()
        scene.undo.callback(browser.close)
        picture = browser.picture(f"http://{scene.admin_addr}/#5utc", 1040, 1010)
        with open(out, "wb") as file:
            file.write(picture)
        demo.say(f"{out}: {len(picture)} bytes")
    finally:
        scene.close()


if __name__ == "__main__":
    sys.exit(main())
