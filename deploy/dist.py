#!/usr/bin/env python3
"""Builds what a release is made of, into dist/: the stripped binary, its parts (CycloneDX), the image's context, and SHA256SUMS.

The same commit, toolchain and system give the same bytes, in whatever folder: paths are taken out of the binary, and times are those
of the commit. The binary needs the C library of the machine it is built on, or a later one; the image's context has its own.
FEATURES=otlp builds it with that feature.

    python3 deploy/dist.py [directory]

    docker build --tag leasehold - <dist/leasehold-0.1.0-x86_64-unknown-linux-gnu-image.tar
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib

import sbom

ROOT = sbom.ROOT


def build(features):
    """The stripped binary. Paths of this machine are not in it: of the sources, of the crates, of the standard library.

    Neither a `--target` nor another profile: both would change the hashes in the names of functions, and take those of
    benches/functions.order out of force. A feature does so too; RUSTFLAGS do not.
    """
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    rust = subprocess.run(["rustc", "--print", "sysroot"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    places = {ROOT: "/leasehold", home: "/cargo", rust: "/rust"}
    environment = {
        **os.environ,
        "CARGO_INCREMENTAL": "0",
        "CARGO_TARGET_DIR": os.path.join(ROOT, "target", "dist"),
        "RUSTFLAGS": " ".join(["-Cstrip=symbols", *(f"--remap-path-prefix={path}={name}" for path, name in places.items())]),
        # aws-lc is C.
        "CFLAGS": " ".join(f"-ffile-prefix-map={path}={name}" for path, name in places.items()),
        "SOURCE_DATE_EPOCH": str(sbom.commit_time()),
    }
    command = ["cargo", "build", "--release", "--locked", "--bin", "leasehold", "--features", features]
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
    return os.path.join(ROOT, "target", "dist", "release", "leasehold")


def image(binary, into):
    """The context of the image: what the Dockerfile's first stage would have left, and its last stage."""
    with open(os.path.join(ROOT, "Dockerfile")) as file:
        text = file.read()
    step = re.search(r"^RUN (mkdir -p /root-of-image.*?[^\\])$", text, re.M | re.S)[1]
    last = "FROM " + text.split("\nFROM ")[-1].replace("COPY --from=build /root-of-image /", "COPY root /")
    root = os.path.join(into, "root")
    step = step.replace("target/release/leasehold", binary).replace("/root-of-image", root)
    subprocess.run(["sh", "-euc", step], check=True)
    with open(os.path.join(into, "Dockerfile"), "w") as file:
        file.write(last)


def archive(directory, path, epoch):
    """A tar file of the directory; neither times, owners nor the order on disk are in it."""
    def plain(entry):
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = epoch, 0, 0, "", ""
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as out:
        for at, directories, names in os.walk(directory):
            directories.sort()
            for name in sorted(directories + names):
                place = os.path.join(at, name)
                out.add(place, os.path.relpath(place, directory), recursive=False, filter=plain)


def main():
    out = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "dist"))
    target, epoch, features = sbom.host(), sbom.commit_time(), os.environ.get("FEATURES", "")
    with open(os.path.join(ROOT, "Cargo.toml"), "rb") as file:
        name = f"leasehold-{tomllib.load(file)['package']['version']}-{target}" + (f"-{features}" if features else "")
    binary = build(features)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    shutil.copy(binary, os.path.join(out, name))
    with open(os.path.join(out, f"{name}.cdx.json"), "w") as file:
        json.dump(sbom.bill(target, epoch, features), file, indent=1)
        file.write("\n")
    with tempfile.TemporaryDirectory() as context:
        image(binary, context)
        archive(context, os.path.join(out, f"{name}-image.tar"), epoch)
    sums = io.StringIO()
    for part in sorted(os.listdir(out)):
        with open(os.path.join(out, part), "rb") as file:
            sums.write(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {part}\n")
    with open(os.path.join(out, "SHA256SUMS"), "w") as file:
        file.write(sums.getvalue())
    print(sums.getvalue(), end="")


if __name__ == "__main__":
    main()
