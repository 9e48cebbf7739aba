#!/usr/bin/env python3
"""The parts of the leasehold binary as CycloneDX 1.6 JSON, on standard output: each crate that is compiled into it, with its
licence and its checksum, and what needs what. The same sources give the same bytes.

    python3 deploy/sbom.py [target triple]
"""

import datetime
import json
import os
import subprocess
import sys
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def metadata(target, features=""):
    """What Cargo knows of the packages that this target needs, with these features, which commas separate."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}", f"--features={features}"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def linked(target, features=""):
    """Name and version of each crate whose code is in the binary. What `cargo metadata` gives has the features that tests ask for
    too, and the macros, which run in the compiler."""
    command = ["cargo", "tree", "--locked", f"--target={target}", "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}",
               f"--features={features}"]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    words = (line.split() for line in said.splitlines())
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def compiled(known, target, features=""):
    """The packages that are linked in, each with what it needs of the others by normal dependencies."""
    names = linked(target, features)
    inside = {package["id"] for package in known["packages"] if (package["name"], package["version"]) in names}
    return {node["id"]: sorted(dep["pkg"] for dep in node["deps"] if dep["pkg"] in inside
                               and any(kind["kind"] is None for kind in dep["dep_kinds"]))
            for node in known["resolve"]["nodes"] if node["id"] in inside}


def purl(package):
    """https://github.com/package-url/purl-spec: the name of a crate of the Rust registry."""
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def component(package, checksums, kind):
    entry = {"type": kind, "bom-ref": purl(package), "name": package["name"], "version": package["version"],
             "purl": purl(package)}
    if package["license"]:
        # Crates of old write `/` for OR.
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def bill(target, epoch, features=""):
    """The whole document; `epoch` is its time, in seconds since 1970."""
    known = metadata(target, features)
    packages = {package["id"]: package for package in known["packages"]}
    root = known["resolve"]["root"]
    needs = compiled(known, target, features)
    with open(os.path.join(ROOT, "Cargo.lock"), "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in locked}
    others = sorted((packages[package] for package in needs if package != root), key=purl)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(packages[root], checksums, "application"),
            "properties": [{"name": "target", "value": target}],
        },
        "components": [component(package, checksums, "library") for package in others],
        "dependencies": [{"ref": purl(packages[package]), "dependsOn": sorted(purl(packages[need]) for need in needs[package])}
                         for package in sorted(needs, key=lambda package: purl(packages[package]))],
    }


def commit_time():
    """SOURCE_DATE_EPOCH, or when the latest commit was made. https://reproducible-builds.org/specs/source-date-epoch/"""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    if told:
        return int(told)
    return int(subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True).stdout)


def host():
    """The triple of this machine."""
    said = subprocess.run(["rustc", "-vV"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in said.splitlines() if line.startswith("host:"))


if __name__ == "__main__":
    json.dump(bill(sys.argv[1] if len(sys.argv) > 1 else host(), commit_time()), sys.stdout, indent=1)
    print()
