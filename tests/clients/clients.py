"""The clients of the matrix: how each is installed and started."""

import os
import sys

import stage  # noqa: F401  (it puts tests/bench on the path)
import install

HERE = os.path.dirname(os.path.abspath(__file__))


class Client:
    """`parts`: what tests/bench/install.py installs for it; `command` and `environment` are asked for after that."""

    def __init__(self, name, command, parts=(), environment=dict, pool=False):
        self.name, self.command, self.parts, self.environment, self.pool = name, command, parts, environment, pool

    def install(self):
        install.ensure(*self.parts)


def python(name, file, parts=("python",), pool=False, **environment):
    def of():
        return {"PYTHONPATH": install.python(), **{key: value() for key, value in environment.items()}}
    return Client(name, lambda: [sys.executable, os.path.join(HERE, "python", f"{file}.py")], parts, of, pool)


CLIENTS = [
    python("psql", "use_psql", parts=("postgres",), CLIENT_PSQL=lambda: install.client("psql")),
    python("psycopg", "use_psycopg", pool=True),
    python("psycopg async", "use_psycopg_async", pool=True),
    python("asyncpg", "use_asyncpg", pool=True),
]
