#!/usr/bin/env python3
"""Asks promtool which alerts of deploy/prometheus/alerts.yaml fire on what real leaseholds said: exit code 0, or 1 with the
difference.

    python3 tests/deploy/alerts.py recorded.json

The file is a list of {"instance": a name, "fire": the alerts that must fire, and no others, "samples": texts of /metrics}. One
sample is taken to be 30 s after the one before. Every alert of the rules must be in one of the lists.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import install  # noqa: E402  (in tests/bench)

RULES = os.path.join(ROOT, "deploy", "prometheus", "alerts.yaml")
EVERY = 30
FIRED = 'group by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1d]))'


def series(samples, instance, wanted):
    """The metrics that are wanted, in promtool's notation of series."""
    values = {}
    for at, text in enumerate(samples):
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.M):
            if name in wanted:
                labels = ",".join(filter(None, [labels, f'instance="{instance}",job="leasehold"']))
                values.setdefault(f"{name}{{{labels}}}", {})[at] = value
    return [{"series": name, "values": " ".join(at.get(sample, "_") for sample in range(len(samples)))}
            for name, at in sorted(values.items())]


def case(recorded, wanted):
    """A test in promtool's format; YAML is a superset of JSON."""
    instance, samples = recorded["instance"], recorded["samples"]
    fired = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(recorded["fire"])]
    return {
        "name": instance,
        "interval": f"{EVERY}s",
        "input_series": series(samples, instance, wanted),
        "promql_expr_test": [{"expr": FIRED, "eval_time": f"{EVERY * len(samples)}s", "exp_samples": fired}],
    }


def main():
    install.ensure("promtool")
    with open(sys.argv[1]) as file:
        recorded = json.load(file)
    with open(RULES) as file:
        rules = file.read()
    alerts = set(re.findall(r"^ *- alert: (\w+)$", rules, re.M))
    never = alerts - {name for each in recorded for name in each["fire"]}
    if never or not alerts:
        print(f"no fault is there for {sorted(never)}", file=sys.stderr)
        return 1
    wanted = set(re.findall(r"\b(?:leasehold|process)_\w+", rules))
    tests = [case(each, wanted) for each in recorded]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"rule_files": [RULES], "evaluation_interval": f"{EVERY}s", "tests": tests}, file)
        file.flush()
        done = subprocess.run([install.promtool(), "test", "rules", file.name], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{done.stdout}{done.stderr}", file=sys.stderr)
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
