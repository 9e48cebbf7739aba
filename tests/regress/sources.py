"""Where the suites come from: source packages, pinned, unpacked and built under .dev/."""

import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "bench"))
import install  # noqa: E402  (in tests/bench)

POSTGRES_MAJOR = "15"
POSTGRES = "15.18-0+deb12u1"
POSTGRES_SHA256 = "11df0df97fe3ea4ba9a791faaf39cee1d2fe571e78885b5b55d8517d27c323b4"
# Source distributions of PyPI.
SHA256 = {"asyncpg==0.32.0": "45e64e56714d888330b884aad1dfb363d0bf43fb343e3d1a8968525f3bade478",
          "psycopg2==2.9.13": "d36784fc2dae69523ba4b79c7d1d1b4d6e83e87836874f111262f4db940b16a6",
          "SQLAlchemy==2.1.9": "d700a8b2edfb26282a470333d6bc4a454c4acda4d201a3bea7b72fa76c217d28",
          "Django==5.2.19": "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1"}


def postgres():
    """A directory with the tests of PostgreSQL 15: `regress` with its library of C functions, `isolation`, and the program
    `libpq_pipeline` with what it is expected to trace."""
    where = os.path.join(install.DEV, f"regress-postgres-{POSTGRES}")

    def fill(target, fresh):
        install.say(f"the tests of PostgreSQL {POSTGRES}")
        source = _unpack(_debian_source(f"postgresql-{POSTGRES_MAJOR}", POSTGRES, fresh), POSTGRES_SHA256, fresh, "/src/test/")
        for part in ("regress", "isolation", os.path.join("modules", "libpq_pipeline")):
            shutil.move(os.path.join(source, "src", "test", part), os.path.join(target, os.path.basename(part)))
        package = install.fetch_deb(f"postgresql-server-dev-{POSTGRES_MAJOR}", fresh)
        install.run(["dpkg-deb", "-x", package, os.path.join(fresh, "dev")])
        headers = f"-I{os.path.join(fresh, 'dev', 'usr', 'include', 'postgresql', POSTGRES_MAJOR, 'server')}"
        _build(["-shared", "-fPIC", headers, os.path.join(target, "regress", "regress.c")], os.path.join(target, "regress", "regress.so"))
        pipeline = os.path.join(target, "libpq_pipeline", "libpq_pipeline")
        _libpq()
        libraries = os.path.join(fresh, "dev", "usr", "lib", "postgresql", POSTGRES_MAJOR, "lib")
        _build(["-I/usr/include/postgresql", headers, f"{pipeline}.c", "-lpq",
                *(os.path.join(libraries, f"{name}.a") for name in ("libpgcommon", "libpgport"))], pipeline)
        install.run(["chmod", "-R", "a+rX", target])
    with install.locked():
        install.once(where, fill)
    return where


def python(requirement, parts=("tests",)):
    """A directory with these parts of a source distribution."""
    where = os.path.join(install.DEV, f"regress-{requirement.replace('==', '-')}")

    def fill(target, fresh):
        install.say(f"the tests of {requirement}")
        _libpq()  # pip asks psycopg2's sources what they are called, which look for it
        name = requirement.split("==")[0]
        install.pip("download", "--no-binary", name, "--dest", fresh, requirement)
        packed, = glob.glob(os.path.join(fresh, "*.tar.gz"))
        source = _unpack(packed, SHA256[requirement], fresh, "/")
        for part in parts:
            shutil.move(os.path.join(source, part), os.path.join(target, part))
    with install.locked():
        install.once(where, fill)
    return where


def pytest():
    """PYTHONPATH of pytest, and of what tests need beside it."""
    requirements = os.path.join(HERE, "pytest.txt")
    with open(requirements, "rb") as file:
        where = os.path.join(install.DEV, f"regress-pytest-{hashlib.sha256(file.read()).hexdigest()[:12]}")

    def fill(target, _):
        install.say("pytest")
        install.pip("install", "--only-binary", ":all:", "--target", target, "--requirement", requirements)
    with install.locked():
        install.once(where, fill)
    return where


def _libpq():
    if not os.path.exists("/usr/include/postgresql/libpq-fe.h"):
        install.debian("libpq's headers", "libpq-dev")


def _debian_source(package, version, fresh):
    """Fetches the upstream archive of a Debian source package, with package lists of its own; its path."""
    if shutil.which("apt-get") is None:
        raise install.Missing(f"{package} is a Debian source package, and apt-get is not here")
    lists = os.path.join(fresh, "lists")
    os.makedirs(os.path.join(lists, "partial"))
    with open(os.path.join(fresh, "sources.list"), "w") as file:
        file.write(f"deb-src {_debian_archive()}\n")
    apart = ["-o", f"Dir::Etc::sourcelist={fresh}/sources.list", "-o", "Dir::Etc::sourceparts=/nonexistent",
             "-o", f"Dir::State::lists={lists}", "-o", "APT::Sandbox::User=root"]
    install.run(["apt-get", "update", "-q", *apart], cwd=fresh)
    install.run(["apt-get", "source", "--download-only", "-q", *apart, f"{package}={version}"], cwd=fresh)
    packed, = glob.glob(os.path.join(fresh, "*.orig.tar.*"))
    return packed


def _debian_archive():
    """Where this machine takes Debian's packages from: address, release and component."""
    asked = ["apt-get", "indextargets", "--format", "$(LABEL) $(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    for line in subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
        label, archive = line.split(" ", 1)
        if label == "Debian" and archive.endswith(" main"):
            return archive
    raise install.Missing("no package list of Debian is here: apt-get update")


def _unpack(packed, pinned, fresh, part):
    """Unpacks what has `part` in its name, verified; the directory of the archive."""
    with open(packed, "rb") as file:
        have = hashlib.sha256(file.read()).hexdigest()
    if have != pinned:
        raise install.Missing(f"{os.path.basename(packed)} has sha256 {have}, but {pinned} is pinned")
    with tarfile.open(packed) as archive:
        members = [member for member in archive.getmembers() if part in member.name]
        archive.extractall(fresh, members)
    return os.path.join(fresh, members[0].name.split("/")[0])


def _build(arguments, program):
    if shutil.which("cc") is None:
        install.debian("a C compiler", "gcc libc6-dev")
    install.run(["cc", "-O1", "-w", "-o", program, *arguments])
