#!/usr/bin/env python3
"""What `make dist` puts beside the binary: its parts and the image's context, for a binary that is there. Exit code 0 or 1.

The parts are CycloneDX by its own schema and are what Cargo.lock has; the context is the same bytes twice, and the binary runs in
it alone. That two builds are the same is not tried here: each takes minutes.

    python3 tests/deploy/release.py path/to/leasehold
"""

import glob
import json
import os
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "bench"), os.path.join(ROOT, "deploy")]
import dist  # noqa: E402  (in deploy)
import install  # noqa: E402  (in tests/bench)
import sbom  # noqa: E402  (in deploy)


def schema_findings(document):
    """What CycloneDX' own schema says."""
    import jsonschema
    import referencing
    directory = os.path.join(install.python(), "cyclonedx", "schema", "_res")
    schemas = {}
    for path in glob.glob(os.path.join(directory, "*.schema.json")):
        with open(path) as file:
            schemas[os.path.basename(path)] = json.load(file)
    registry = referencing.Registry().with_resources(
        (schema["$id"], referencing.Resource.from_contents(schema)) for schema in schemas.values() if "$id" in schema)
    validator = jsonschema.Draft7Validator(schemas["bom-1.6.SNAPSHOT.schema.json"], registry=registry)
    for error in validator.iter_errors(document):
        yield f"{list(error.path)}: {error.message[:200]}"


def parts():
    """What is wrong with the list of parts."""
    document = sbom.bill(sbom.host(), 1_700_000_000)
    yield from schema_findings(document)
    again = sbom.bill(sbom.host(), 1_700_000_000)
    if json.dumps(document) != json.dumps(again):
        yield "two lists of parts differ"
    names = {entry["name"] for entry in document["components"]}
    for wanted in ("tokio", "rustls", "aws-lc-sys", "vaultrs"):
        if wanted not in names:
            yield f"{wanted} is missing"
    if "proptest" in names:
        yield "what only tests use is in it"
    refs = {entry["bom-ref"] for entry in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    if refs != {entry["ref"] for entry in document["dependencies"]}:
        yield "what needs what is not said of every part"
    yield from (f"{entry['name']} has no checksum" for entry in document["components"] if "hashes" not in entry)
    broken = {**document, "components": [{"type": "crate"}]}
    if not list(schema_findings(broken)):
        yield "the schema finds nothing wrong with a wrong part"


def context(leasehold):
    """What is wrong with the image's context."""
    with tempfile.TemporaryDirectory() as directory:
        tars = []
        for name in ("one", "two"):
            place = os.path.join(directory, name)
            os.mkdir(place)
            dist.image(leasehold, place)
            tars.append(os.path.join(directory, f"{name}.tar"))
            dist.archive(place, tars[-1], 1_700_000_000)
        with open(tars[0], "rb") as one, open(tars[1], "rb") as two:
            if one.read() != two.read():
                yield "two contexts differ"
        with tarfile.open(tars[0]) as archive:
            names = archive.getnames()
            dockerfile = archive.extractfile("Dockerfile").read().decode()
        for wanted in ("root/leasehold", "root/etc/ssl/certs/ca-certificates.crt", "root/etc/nsswitch.conf"):
            if wanted not in names:
                yield f"{wanted} is not in the context"
        if "FROM scratch" not in dockerfile or "COPY root /" not in dockerfile or "USER 65532:65532" not in dockerfile:
            yield f"the context's Dockerfile is\n{dockerfile}"


def main():
    install.ensure("python")
    sys.path.insert(0, install.python())
    found = [*parts(), *context(os.path.abspath(sys.argv[1]))]
    for finding in found:
        print(finding, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
