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
    ("kubernetes", "base/kustomization.yaml", "- leasehold.toml", "- other.toml", "other.toml"),
    ("kubernetes", "shared/networkpolicy.yaml", "    - from:\n        - podSelector:\n            matchLabels: "
     '{leasehold-client: "true"}\n      ports:', "    - ports:", "lets all in"),
    ("systemd", "leasehold.service", "RestartPreventExitStatus=64 78", "RestartPreventExitStatus=64", "for ever"),
    ("systemd", "leasehold.service", "ProtectSystem=strict", "ProtectSystm=strict", "verify"),
    ("systemd", "leasehold.service", "DynamicUser=yes", "DynamicUser=no", "security"),
    ("systemd", "state-file.conf", "DynamicUser=no", "DynamicUsr=no", "verify"),
    ("systemd", "state-file.conf", "Preserve=restart", "Preserve=no", "is gone"),
    ("kubernetes", "sidecar/pod.yaml", "FallbackToLogsOnError", "File", "not shown"),
    ("kubernetes", "daemonset/kustomization.yaml", "value: DaemonSet", "value: ReplicaSet", "schema"),
    ("kubernetes", "rollout/kustomization.yaml", "value: Rollout", "value: Rolout", "schema"),
    ("kubernetes", "egress/networkpolicy.yaml", "policyTypes: [Egress]", "policyType: [Egress]", "schema"),
    ("kubernetes", "monitoring/prometheusrule.yaml", "leasehold_vault_up", "leasehold_vault_pu", "writes it anew"),
    ("helm", "leasehold/templates/workload.yaml", "{medium: Memory, ", "{", "not in memory"),
    ("helm", "leasehold/templates/workload.yaml", "failureThreshold: 600", "failureThreshold: 30", "startup probe"),
    ("helm", "leasehold/templates/service.yaml", "targetPort: postgres", "targetPort: potsgres", "names no port"),
    ("helm", "leasehold/templates/_names.tpl", "listen_public = true", "listen_public = false", "cannot reach it"),
    ("helm", "leasehold/templates/_names.tpl", 'required "config', 'default "config', "is taken"),
    ("helm", "leasehold/templates/monitoring.yaml", "port: metrics", "port: postgres", "PodMonitor"),
    ("helm", "leasehold/values.yaml", "terminationGracePeriodSeconds: 75", "terminationGracePeriodSeconds: 60", "below"),
    ("helm", "leasehold/templates/workload.yaml", "/state/admin.sock", "127.0.0.1:9091", "other containers"),
    ("helm", "leasehold/values.yaml", "vault_path =", "vault_paht =", "refuses the settings"),
    ("helm", "leasehold-sidecar/templates/_sidecar.tpl", "restartPolicy: Always", "restartPolicy: Never", "sidecar"),
    ("helm", "leasehold-sidecar/templates/_sidecar.tpl", "drop: [ALL]", "drop: [NET_RAW]", "capabilities"),
    ("helm", "leasehold/files/alerts.yaml", "leasehold_vault_up", "leasehold_vault_pu", "writes it anew"),
    ("helm", "app-example/values.yaml", "postgres: postgres-ca", "postgres: \"\"", "not in the volume"),
    ("helm", "app-example/Chart.yaml", "name: leasehold-sidecar", "name: leasehold-sidecart", "helm lint"),
    ("prometheus", "alerts.yaml", "leasehold_vault_up", "leasehold_vault_pu", "no metric"),
    ("prometheus", "alerts.yaml", "failed|forbidden", "failed|forbiden", "is no outcome"),
    ("prometheus", "alerts.yaml", "without (outcome)", "without (outcom)", "label of nothing"),
    ("prometheus", "alerts.yaml", "{{ $labels.route }}", "{{ $labels.rout }}", "is no label"),
    ("prometheus", "alerts.yaml", "increase(", "incraese(", "promtool"),
    ("prometheus", "alerts.yaml", "#leaseholdnotready", "#leaseholdnotraedy", "runbook"),
    ("prometheus", "../grafana/leasehold.json", "leasehold_login_seconds_bucket", "leasehold_login_bucket", "no metric"),
    ("systemd", "leasehold.service", "TimeoutStopSec=30s", "TimeoutStopSec=20s", "below"),
)


def plant(leasehold, part, name, was, is_now, word):
    with tempfile.TemporaryDirectory() as directory:
        deploy = os.path.join(directory, "deploy")
        shutil.copytree(os.path.join(validate.ROOT, "deploy"), deploy, symlinks=True)
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
