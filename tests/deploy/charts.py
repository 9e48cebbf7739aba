"""Renders the Helm charts as their users would, and looks for what no rendering may have. Used by validate.py."""

import os
import shutil
import tempfile

# What is set beside the chart's own values: each of these must render, and be right.
SHARED = {
    "as it is": {},
    "with all": {
        "kind": "DaemonSet",
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "caConfigMaps": {"vault": "vault-ca", "postgres": "postgres-ca"},
        "ports": {"metrics": 9190},
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "LEASEHOLD_LOG_LEVEL", "value": "debug"}],
        "extraVolumes": [{"name": "tls", "secret": {"secretName": "leasehold-tls"}}],
        "extraVolumeMounts": [{"name": "tls", "mountPath": "/etc/leasehold-tls", "readOnly": True}],
        "podAnnotations": {"one": "more"},
        "podLabels": {"one": "more"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "networkPolicy": {"egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": 8200}]}]},
    },
}
SIDECAR = {
    "as it is": {},
    "with another port": {"leasehold": {"ports": {"metrics": 9190}, "env": [{"name": "LEASEHOLD_LOG_LEVEL", "value": "debug"}]}},
}
# What must be refused, with a word of the reason.
REFUSED = {
    "config": ({"config": ""}, "leasehold.toml"),
    "kind": ({"kind": "StatefulSet"}, "DaemonSet"),
    "clients": ({"networkPolicy": {"clients": []}}, "everybody"),
}


def rendered(helm, findings):
    """Each chart with each set of values: a name, the text, whether it is a sidecar."""
    from helm_python.chart import Chart
    from helm_python.errors import HelmError
    shared = os.path.join(helm, "leasehold")
    findings += linted(shared)
    with Chart.load(shared) as chart:
        for name, values in SHARED.items():
            yield f"leasehold {name}", text(chart, values, "leasehold"), False
        for name, (values, word) in REFUSED.items():
            try:
                text(chart, values, "leasehold")
                findings.append(f"leasehold: {name} is taken: {values}")
            except HelmError as error:
                findings.expect(word in str(error), f"leasehold: {name}: {error}")
    with tempfile.TemporaryDirectory() as directory:
        # What `helm dependency update` does.
        app = shutil.copytree(os.path.join(helm, "app-example"), os.path.join(directory, "app-example"))
        shutil.copytree(os.path.join(helm, "leasehold-sidecar"), os.path.join(app, "charts", "leasehold-sidecar"))
        findings += linted(app)
        with Chart.load(app) as chart:
            for name, values in SIDECAR.items():
                yield f"sidecar {name}", text(chart, values, "app"), True


def text(chart, values, name):
    """The manifests as one text."""
    manifests = chart.render(values=values, name=name, namespace="default")
    return "\n---\n".join(manifest for path, manifest in sorted(manifests.items()) if path.endswith(".yaml"))


def linted(path):
    """What `helm lint --strict` says beside its wish for an icon."""
    from helm_python.chart import lint
    report = lint(path, strict=True)
    for message in report["messages"]:
        if message["severity"] > 1:
            yield f"helm lint {os.path.basename(path)}: {message['path']}: {message['error']}"
    yield from (f"helm lint {os.path.basename(path)}: {error}" for error in report["errors"])
