#!/usr/bin/env python3
"""Checks what leasehold is built from, by Cargo.lock and the sources that Cargo has unpacked. `make test` runs it.

    python3 deploy/supply.py                        licences, sources and checksums; prints versions that are there twice
    python3 deploy/supply.py --write                writes the list of unsafe code in docs/dependencies.md
    python3 deploy/supply.py --advisories DIRECTORY also compares every version with a checkout, or a bare repository, of
                                                    the RustSec Advisory Database

It fails on a licence that is not in LICENCES, on a package that does not come from the crates.io index with a checksum, on a
Cargo.toml in which unsafe code is not forbidden, and on an advisory. Python's standard library only.
"""

import argparse
import os
import re
import subprocess
import sys
import tomllib

import sbom

ROOT = sbom.ROOT
DOCUMENT = os.path.join(ROOT, "docs", "dependencies.md")
BEGIN, END = "<!-- begin: deploy/supply.py -->", "<!-- end: deploy/supply.py -->"
INDEX = "registry+https://github.com/rust-lang/crates.io-index"
# All of them let a binary be passed on with a notice.
LICENCES = {"MIT", "MIT-0", "Apache-2.0", "ISC", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "Unicode-3.0",
            "Unlicense", "Zlib"}


def is_allowed(expression):
    """Whether an SPDX expression can be kept to with LICENCES alone. Crates of old write `/` for OR."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def any_of():
        value = all_of()
        while words and words[0] == "OR":
            words.pop(0)
            value = all_of() or value
        return value

    def all_of():
        value = one()
        while words and words[0] == "AND":
            words.pop(0)
            value = one() and value
        return value

    def one():
        word = words.pop(0)
        if word == "(":
            value = any_of()
            words.pop(0)
            return value
        if words and words[0] == "WITH":
            # An exception only permits more.
            del words[:2]
        return word in LICENCES

    return any_of() and not words


def faults(packages, locked):
    """What is wrong, a line each."""
    found = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not is_allowed(package["license"] or "none"):
            found.append(f"{name}: licence {package['license']}")
    for package in locked:
        name = f"{package['name']} {package['version']}"
        own = package["name"] == "leasehold"
        if not own and (package.get("source") != INDEX or "checksum" not in package):
            found.append(f"{name}: not of the crates.io index, or without a checksum")
    with open(os.path.join(ROOT, "Cargo.toml"), "rb") as file:
        if tomllib.load(file)["lints"]["rust"]["unsafe_code"] != "forbid":
            found.append("leasehold: unsafe code is not forbidden")
    return found


def twice(packages):
    """The names of which more than one version is linked into the binary."""
    versions = {}
    for package in packages:
        versions.setdefault(package["name"], []).append(package["version"])
    return {name: sorted(known) for name, known in sorted(versions.items()) if len(known) > 1}


# Comments; strings without escapes (r#"…"#); characters, which a quote may be, but not lifetimes; strings.
NO_CODE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\b[bc]?r(#*)".*?"\1|'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\\n])'|"(?:\\.|[^"\\])*\"""", re.S)


def code(text):
    """The text of a Rust file without its comments, strings and characters."""
    return NO_CODE.sub(" ", text)


def unsafe_in(package):
    """How often `unsafe` begins a block, a function, a trait or an implementation in a crate's sources, and whether the
    crate forbids it. Tests inside of the sources are counted too."""
    sources = os.path.join(os.path.dirname(package["manifest_path"]), "src")
    count, forbids = 0, False
    for at, _, names in os.walk(sources):
        for name in names:
            if name.endswith(".rs"):
                with open(os.path.join(at, name), encoding="utf-8", errors="replace") as file:
                    text = code(file.read())
                count += len(re.findall(r"\bunsafe\s*(?:\{|fn\b|impl\b|trait\b|extern\b)", text))
                forbids |= bool(re.search(r"#!\[[^\]]*forbid\([^)]*\bunsafe_code\b", text))
    return count, forbids


def listed(packages):
    counted = sorted((package["name"], package["version"], *unsafe_in(package)) for package in packages)
    some = [(name, version, count) for name, version, count, forbids in counted if count and not forbids]
    without = len(counted) - len(some)
    forbidding = sum(1 for *_, forbids in counted if forbids)
    lines = [
        f"Of the {len(counted)} crates that are linked into the binary on Linux, {without} have no unsafe code, and "
        f"{forbidding} of these forbid it. In the",
        "others `unsafe` begins a block, a function, a trait or an implementation so many times, in whatever part of the crate:",
        "",
    ]
    lines += [f"- {name} {version}: {count}" for name, version, count in some]
    return "\n".join(lines)


def write(text):
    with open(DOCUMENT, encoding="utf-8") as file:
        before, rest = file.read().split(BEGIN)
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])


def advisories(directory):
    """The tables of each advisory about a crate, of a checkout or of a bare repository."""
    if os.path.isdir(os.path.join(directory, "crates")):
        for at, _, names in os.walk(os.path.join(directory, "crates")):
            for name in names:
                with open(os.path.join(at, name), encoding="utf-8") as file:
                    yield from head(file.read())
        return
    git = ["git", "-C", directory]
    listed = subprocess.run([*git, "ls-tree", "-r", "--name-only", "HEAD", "crates/"], check=True, capture_output=True, text=True)
    for path in listed.stdout.split():
        yield from head(subprocess.run([*git, "show", f"HEAD:{path}"], check=True, capture_output=True, text=True).stdout)


def head(text):
    found = re.search(r"```toml\n(.*?)```", text, re.S)
    if found:
        yield tomllib.loads(found[1])


def key(version):
    """An order of versions; one before a release comes before it."""
    numbers, _, pre = version.split("+")[0].partition("-")
    parts = [int(part) for part in numbers.split(".")]
    return (parts + [0, 0, 0])[:3], not pre, pre


def fits(version, requirement):
    """Whether a version is in a range such as `>= 1.2, < 2` or `^1.2.3`."""
    have = key(version)
    for part in requirement.split(","):
        operator, wanted = re.fullmatch(r"\s*(>=|<=|<|>|=|\^|~)?\s*(\S+)\s*", part).groups()
        least = key(wanted)
        upper = list(least[0])
        kept = next((at for at, number in enumerate(upper) if number), 2) if operator in (None, "^") else 1
        above = upper[:kept + 1]
        above[-1] += 1
        good = {
            ">=": have >= least, ">": have > least, "<=": have <= least, "<": have < least, "=": have == least,
        }.get(operator, least <= have < ((above + [0, 0, 0])[:3], False, ""))
        if not good:
            return False
    return True


def advised_against(locked, directory):
    versions = {}
    for package in locked:
        versions.setdefault(package["name"], []).append(package["version"])
    count, found = 0, []
    for advisory in advisories(directory):
        count += 1
        about = advisory["advisory"]
        if "withdrawn" in about:
            continue
        good = advisory["versions"].get("patched", []) + advisory["versions"].get("unaffected", [])
        for version in versions.get(about["package"], []):
            if not any(fits(version, requirement) for requirement in good):
                kind = about.get("informational", "vulnerability")
                found.append(f"{about['package']} {version}: {about['id']} ({kind})")
    print(f"{count} advisories were compared with {len(locked)} packages")
    return found


def check_itself():
    """A check that finds nothing must be able to."""
    kept = code("""'"' one b'"' /* " */ r#"no" no"# '\\'' two "no \\" no" <'a, 'b> '\\u{22}' three // no""")
    assert re.findall(r"\w+", kept) == ["one", "b", "two", "a", "b", "three"], kept
    assert is_allowed("MIT/Apache-2.0") and is_allowed("(GPL-3.0 OR MIT) AND Zlib")
    assert not any(is_allowed(word) for word in ("GPL-3.0-only", "MIT AND GPL-2.0", "(MIT AND LGPL-3.0) OR MPL-2.0", "none"))
    assert fits("0.23.5", ">= 0.22.4, < 0.24") and fits("1.4.0", "^1.2") and fits("0.2.9", "~0.2.3") and fits("0.1.3", "0.1.2")
    assert not any(fits(*pair) for pair in (("0.23.4", ">= 0.23.5"), ("2.0.0", "^1.2"), ("0.3.0", "^0.2.1"), ("1.0.0-rc.1", ">= 1.0")))


def main():
    check_itself()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--advisories", metavar="DIRECTORY")
    options = parser.parse_args()
    # Licences and sources are those of every build; the list is that of the default one.
    known = sbom.metadata(sbom.host(), "otlp")
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    linked = sbom.compiled(known, sbom.host())
    packages = [package for package in known["packages"] if package["id"] in nodes]
    crates = [package for package in packages if package["id"] in linked and package["source"]]
    with open(os.path.join(ROOT, "Cargo.lock"), "rb") as file:
        locked = tomllib.load(file)["package"]
    found = faults(packages, locked)
    if options.advisories:
        found += advised_against(locked, options.advisories)
    for name, versions in twice(crates).items():
        print(f"linked in more than one version: {name} {', '.join(versions)}")
    if options.write:
        write(listed(crates))
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"{len(packages)} packages: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
