#!/usr/bin/env python3
"""Runs leasehold's fuzz targets under libFuzzer, which learns from what code each input reaches.

    make fuzz                                      every target, 30 minutes each, as many at a time as there are cores
    make fuzz TARGETS="uri config" FUZZ_SECONDS=60 some of them, a minute each
    python3 fuzz/run.py --asan                     under AddressSanitizer, which also sees memory errors of C code
    python3 fuzz/run.py --keep                     afterwards, the inputs that reach something new go into fuzz/corpus
    python3 fuzz/run.py --record                   writes the table of fuzz/README.md
    TARGET=uri fuzz/target/plain/x86_64-unknown-linux-gnu/release/fuzz FILE   one input again; asan/ for plain/ after --asan

It needs a C++ compiler. The instrumentation is a pass of LLVM's that stable rustc can be asked for; AddressSanitizer is an
option of nightly rustc, which RUSTC_BOOTSTRAP opens in the stable one, with the runtime that the toolchain has. An input
that makes a target panic, take over 10 s or over 2 GiB is left in fuzz/artifacts, and ends the run with status 1.
Python's standard library only.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TRIPLE = "x86_64-unknown-linux-gnu"
COVERAGE = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
README = os.path.join(HERE, "README.md")
BEGIN, END = "<!-- begin of the table -->", "<!-- end of the table -->"


def build(asan):
    flags = COVERAGE + (["-Zsanitizer=address"] if asan else [])
    directory = os.path.join(HERE, "target", "asan" if asan else "plain")
    environment = dict(os.environ, RUSTFLAGS=" ".join(flags), CARGO_TARGET_DIR=directory)
    if asan:
        environment["RUSTC_BOOTSTRAP"] = "1"
    command = ["cargo", "build", "--locked", "--release", "--target", TRIPLE, "--manifest-path",
               os.path.join(HERE, "Cargo.toml")]
    subprocess.run(command, env=environment, check=True)
    return os.path.join(directory, TRIPLE, "release", "fuzz")


def folder(*parts):
    path = os.path.join(HERE, *parts)
    os.makedirs(path, exist_ok=True)
    return path


def fuzz(binary, target, seconds):
    """Feeds one target. Its row of the table: executions, covered edges, inputs, and what was found."""
    found, corpus = folder("found", target), folder("corpus", target)
    artifacts = folder("artifacts")
    command = ["nice", binary, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096",
               "-print_final_stats=1", f"-artifact_prefix={artifacts}/{target}-", found, corpus]
    # A leak is no fault of these targets: they keep tables for the life of the process.
    environment = dict(os.environ, TARGET=target, ASAN_OPTIONS="detect_leaks=0")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text = done.stdout.decode(errors="replace")
    with open(os.path.join(artifacts, f"{target}.log"), "w", encoding="utf-8") as log:
        log.write(text)
    executions = re.search(r"stat::number_of_executed_units:\s+(\d+)", text)
    covered = re.findall(r"cov: (\d+)", text)
    row = {
        "target": target,
        "seconds": seconds,
        "executions": int(executions.group(1)) if executions else 0,
        "edges": int(covered[-1]) if covered else 0,
        "inputs": len(os.listdir(found)) + len(os.listdir(corpus)),
        "found": "nothing" if done.returncode == 0 else f"status {done.returncode}",
    }
    print(f"{target}: {row['executions']} inputs in {seconds} s, {row['edges']} edges: {row['found']}", flush=True)
    if done.returncode != 0:
        print("\n".join(text.splitlines()[-25:]), flush=True)
    return row


def keep(binary, target):
    """Adds to the corpus what reaches something that the corpus does not."""
    command = [binary, "-merge=1", "-max_len=4096", folder("corpus", target), folder("found", target)]
    environment = dict(os.environ, TARGET=target, ASAN_OPTIONS="detect_leaks=0")
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def table(rows):
    lines = ["| target | seconds | inputs fed | edges reached | found |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| `{row['target']}` | {row['seconds']} | {row['executions']:,} | {row['edges']:,} | {row['found']} |")
    return "\n".join(lines)


def record(text):
    with open(README, encoding="utf-8") as file:
        before, rest = file.read().split(BEGIN)
    after = rest.split(END)[1]
    with open(README, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="all of them without any")
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--asan", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--build", action="store_true", help="build and end")
    options = parser.parse_args()
    known = sorted(os.listdir(os.path.join(HERE, "corpus")))
    targets = options.targets or known
    for target in targets:
        if target not in known:
            parser.error(f"{target} is none of {', '.join(known)}")
    binary = build(options.asan)
    if options.build:
        return 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda target: fuzz(binary, target, options.seconds), targets))
    if options.keep:
        for target in targets:
            keep(binary, target)
    print(table(rows))
    if options.record:
        record(table(rows))
    return 0 if all(row["found"] == "nothing" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
