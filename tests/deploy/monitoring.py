"""What alert rules and the dashboard name, held to the table of metrics in docs/operations.md; an integration test holds that
table to what leasehold exports. Used by validate.py."""

import json
import os
import re
import shutil
import subprocess

# The labels that Prometheus itself adds, and those of a histogram and of an alert.
ADDED = {"job", "instance", "le"}
METRIC = r"\b((?:leasehold|process)_\w+)(\{[^{}]*\})?"


def documented(root):
    """Each metric of docs/operations.md: its labels, and the words in its row."""
    with open(os.path.join(root, "docs", "operations.md")) as file:
        section = file.read().split("\n## Metrics\n")[1].split("\n## ")[0]
    metrics = {}
    for name, labels, text in re.findall(r"^\| `(\w+)` \|([^|]*)\|(.*)\|$", section, re.M):
        name = name if name.startswith("process_") else f"leasehold_{name}"
        entry = (set(re.findall(r"`(\w+)`", labels)), set(re.findall(r"`(\w+)`", text)))
        metrics[name] = entry
        if text.strip().startswith("histogram"):
            metrics |= {f"{name}{suffix}": entry for suffix in ("_bucket", "_sum", "_count")}
    return metrics


def unknown(expression, metrics):
    """What a PromQL expression names that is not documented."""
    named = set()
    for name, selector in re.findall(METRIC, expression):
        if name not in metrics:
            yield f"no metric {name}"
            continue
        labels, words = metrics[name]
        named |= labels
        for label, operator, value in re.findall(r"(\w+) *(=~|!~|!=|=) *\"([^\"]*)\"", selector):
            if label not in labels | ADDED:
                yield f"{name} has no label {label}"
            elif label in labels - {"route", "version"}:
                yield from (f"{name}: {word} is no {label}" for word in value.split("|") if word not in words)
    for grouped in re.findall(r"\b(?:by|without|on|ignoring) *\(([^()]*)\)", expression):
        for label in filter(None, re.split(r"[ ,]+", grouped)):
            if label not in named | ADDED:
                yield f"{label} is a label of nothing in {expression}"


def shown(template, expression, metrics):
    """The labels in `{{label}}` or `{{ $labels.label }}` that the expression's metrics do not have."""
    named = set().union(*(metrics[name][0] for name, _ in re.findall(METRIC, expression) if name in metrics)) | ADDED
    for label in re.findall(r"\{\{ *(?:\$labels\.)?(\w+) *\}\}", template):
        if label not in named:
            yield f"{{{{{label}}}}} is no label of {expression}"


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    with open(page) as file:
        headings = re.findall(r"^#+ (.*)$", file.read(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def alerts(path, root, promtool):
    """What is wrong with the alert rules."""
    import yaml
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
    if done.returncode != 0:
        yield f"promtool check rules: {done.stdout}{done.stderr}"
        return
    metrics, page = documented(root), os.path.join(root, "docs", "alerts.md")
    with open(path) as file:
        rules = [rule for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]
    for rule in rules:
        name, notes = rule["alert"], rule["annotations"]
        yield from (f"{name}: {finding}" for finding in unknown(rule["expr"], metrics))
        yield from (f"{name}: {finding}" for finding in shown(notes["summary"], rule["expr"], metrics))
        if rule["labels"].get("severity") not in ("warning", "critical"):
            yield f"{name}: no severity"
        if notes.get("runbook") != f"docs/alerts.md#{name.lower()}" or name.lower() not in anchors(page):
            yield f"{name}: its runbook is no paragraph of docs/alerts.md"
    for anchor in anchors(page) - {rule["alert"].lower() for rule in rules} - {"alerts"}:
        yield f"docs/alerts.md has a paragraph on {anchor}, which is no alert"


def dashboard(path, root):
    """What is wrong with the dashboard."""
    metrics = documented(root)
    with open(path) as file:
        board = json.load(file)
    variables = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval", "__all"}
    for name in set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - variables:
        yield f"no variable {name}"
    panels = board["panels"]
    if len({panel["id"] for panel in panels}) != len(panels):
        yield "two panels have one id"
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        if place["x"] + place["w"] > 24 or any(taken.setdefault(cell, panel["title"]) != panel["title"] for cell in cells):
            yield f"{panel['title']} lies over another panel, or over the edge"
        if panel["type"] != "row" and not panel.get("targets"):
            yield f"{panel['title']} shows nothing"
        for target in panel.get("targets", []):
            findings = [*unknown(target["expr"], metrics), *shown(target["legendFormat"], target["expr"], metrics)]
            yield from (f"{panel['title']}: {finding}" for finding in findings)
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield from unknown(variable["query"]["query"], metrics)
    everywhere = json.dumps(board)
    for name in metrics:
        if name.startswith("leasehold_") and not re.search(rf"\b{name}(_bucket|_count)?\b", everywhere):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            if base == name and f"{name}_bucket" not in everywhere:
                yield f"{name} is on no panel"


def chart_copy(deploy):
    """The chart's copy of the rules is the same. It is no link: not every copy of a repository keeps links, and Helm warns of them."""
    path = os.path.join(deploy, "helm", "leasehold", "files", "alerts.yaml")
    rules = os.path.join(deploy, "prometheus", "alerts.yaml")
    if os.environ.get("UPDATE"):
        shutil.copyfile(rules, path)
    with open(path) as file, open(rules) as other:
        if file.read() != other.read():
            yield f"{path} is not what {rules} says; UPDATE=1 writes it anew"


def rule_resource(deploy):
    """The operator's form of the rules has the same groups."""
    import yaml
    path = os.path.join(deploy, "kubernetes", "monitoring", "prometheusrule.yaml")
    rules = os.path.join(deploy, "prometheus", "alerts.yaml")
    with open(path) as file, open(rules) as other:
        resource, wanted = file.read(), other.read()
    if os.environ.get("UPDATE"):
        head = resource.split("\nspec:\n")[0]
        lines = [line for line in wanted.splitlines() if not line.startswith("#")]
        resource = head + "\nspec:\n" + "".join(f"  {line}".rstrip() + "\n" for line in lines)
        with open(path, "w") as file:
            file.write(resource)
    if yaml.safe_load(resource)["spec"] != yaml.safe_load(wanted):
        yield f"{path} is not what {rules} says; UPDATE=1 writes it anew"


def resources(kinds):
    """The operator's resources of one rendering."""
    for rule in kinds.get("PrometheusRule", []):
        if not all(each["expr"] and each["annotations"] for group in rule["spec"]["groups"] for each in group["rules"]):
            yield "a PrometheusRule has no rules"
    for monitor in kinds.get("PodMonitor", []):
        ports = [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]]
        if ports != ["metrics"]:
            yield f"the PodMonitor asks {ports}"
        selected = monitor["spec"]["selector"].get("matchLabels", {}).items()
        for workload in kinds.get("Deployment", []) + kinds.get("DaemonSet", []):
            if not selected <= workload["spec"]["template"]["metadata"]["labels"].items():
                yield "the PodMonitor misses the Pods"
