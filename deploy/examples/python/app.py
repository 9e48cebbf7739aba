"""A whole app: POST /orders?item=tea&amount=3 takes an order and answers with what all orders come to. It knows
DATABASE_URL, in which there is no password, and nothing of Vault, leases or tokens. Without leasehold it would need a login,
a loop that renews two leases, a second pool for each new credential, and a lock around all of them.

    pip install 'psycopg[binary,pool]' && DATABASE_URL=postgresql://app@localhost:6432/myapp python3 app.py
    curl -X POST 'localhost:8080/orders?item=tea&amount=3'

ADDR is another address than localhost:8080, POOL_LIFETIME another age of connections than 900 seconds.
"""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from psycopg_pool import ConnectionPool

# Less than a third of the lease's default_ttl: then leasehold has no connection of this pool left to close.
LIFETIME = float(os.environ.get("POOL_LIFETIME", 15 * 60))
pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=8, max_lifetime=LIFETIME, open=False)


def keep_fresh():
    """The pool looks at the age of a connection only when it is given back; this looks at those that lie idle."""
    while True:
        time.sleep(LIFETIME / 3)
        pool.check()


def place(item, amount):
    with pool.connection() as connection:  # one transaction
        order, = connection.execute(
            "INSERT INTO orders (item, amount) VALUES (%s, %s) RETURNING id", (item, amount)).fetchone()
        total, role = connection.execute(
            "SELECT sum(amount)::bigint, session_user FROM orders WHERE item = %s", (item,)).fetchone()
    return {"id": order, "total": total, "role": role}  # the role is for those who want to see rotations


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        wanted = parse_qs(urlsplit(self.path).query)
        try:
            status, body = 200, json.dumps(place(wanted["item"][0], int(wanted["amount"][0])))
        except Exception as error:
            status, body = 500, f"{error}"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    pool.open(wait=True)
    threading.Thread(target=keep_fresh, daemon=True).start()
    with pool.connection() as connection:
        connection.execute("""CREATE TABLE IF NOT EXISTS orders
            (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, amount bigint NOT NULL)""")
    host, port = os.environ.get("ADDR", "localhost:8080").rsplit(":", 1)
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
