#!/usr/bin/env python3
"""Breaks a copy of deploy/ in one place at a time: tests/deploy/validate.py must find each. Exit code 0 or 1.

    python3 tests/deploy/broken.py path/to/leasehold
"""

import os
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import validate  # noqa: E402  (beside this file)

# The part, the file, what it says, what it says when broken, and a word of the finding.
PLANTS = (
    ("kubernetes", "shared/service.yaml", "targetPort: postgres", "targetport: postgres", "schema"),
    ("kubernetes", "deployment/app.yaml", "replicas: 2", "replicas: two", "schema"),
    ("kubernetes", "sidecar/pod.yaml", "restartPolicy: Always", "restartPolicy: OnFailure", "sidecar"),
    ("kubernetes", "sidecar/cronjob.yaml", "failureThreshold: 3", "failureThreshold: 4", "not the same"),
    ("kubernetes", "sidecar/pod.yaml", "drop: [ALL]", "drop: [NET_RAW]", "capabilities"),
    ("kubernetes", "sidecar/pod.yaml", "{path: /livez,", "{path: /readyz,", "livenessProbe"),
    ("kubernetes", "sidecar/pod.yaml", "failureThreshold: 600", "failureThreshold: 30", "startup probe"),
    ("kubernetes", "sidecar/pod.yaml", "path: postgres-ca.crt", "path: ca.crt", "not in the volume"),
    ("kubernetes", "shared/deployment.yaml", "{medium: Memory, ", "{", "not in memory"),
    ("kubernetes", "job/app.yaml", "restartPolicy: Never", "restartPolicy: Always", "able to end"),
    ("kubernetes", "job/app.yaml", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 20", "below"),
    ("kubernetes", "base/leasehold.toml", 'http = "0.0.0.0:9090"', 'http = "127.0.0.1:9090"', "kubelet"),
    ("kubernetes", "base/leasehold.toml", "vault_path =", "vault_paht =", "refuses the settings"),
    ("kubernetes", "base/kustomization.yaml", "leasehold.toml", "other.toml", "other.toml"),
    ("kubernetes", "shared/networkpolicy.yaml", "    - from:\n        - podSelector:\n            matchLabels: "
     '{leasehold-client: "true"}\n      ports:', "    - ports:", "lets all in"),
    ("systemd", "leasehold.service", "RestartPreventExitStatus=64 78", "RestartPreventExitStatus=64", "for ever"),
    ("systemd", "leasehold.service", "ProtectSystem=strict", "ProtectSystm=strict", "verify"),
    ("systemd", "leasehold.service", "DynamicUser=yes", "DynamicUser=no", "security"),
    ("systemd", "state-file.conf", "DynamicUser=no", "DynamicUsr=no", "verify"),
    ("systemd", "state-file.conf", "Preserve=restart", "Preserve=no", "is gone"),
    ("systemd", "leasehold.service", "TimeoutStopSec=30s", "TimeoutStopSec=20s", "below"),
)


def plant(leasehold, part, name, was, is_now, word):
    with tempfile.TemporaryDirectory() as directory:
        deploy = os.path.join(directory, "deploy")
        shutil.copytree(os.path.join(validate.ROOT, "deploy"), deploy)
        path = os.path.join(deploy, part, name)
        with open(path) as file:
            text = file.read()
        if was not in text:
            return f"{name} does not say {was!r}"
        with open(path, "w") as file:
            file.write(text.replace(was, is_now, 1))
        found = validate.Findings()
        validate.PARTS[part](deploy, leasehold, found)
        return None if any(word in finding for finding in found) else f"{name}: {is_now!r} brought {found or 'nothing'}"


def main():
    leasehold = os.path.abspath(sys.argv[1])
    missed = [missed for each in PLANTS if (missed := plant(leasehold, *each))]
    for text in missed:
        print(text, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
