#!/usr/bin/env python3
"""Holds everything under deploy/ that cannot be run here to what can be checked: exit code 0, or 1 with the findings.

  - each Kubernetes overlay and each Helm chart is rendered, validated against Kubernetes' schemas (oldest and newest here that have native
    sidecars), and held to rules that no schema has: security, probes, times, references, a configuration that leasehold takes
  - the Dockerfile passes hadolint, and what its last stage copies is enough for the binary to run in an empty root
  - the systemd unit passes `systemd-analyze verify`, and `security` finds it exposed by no more than it should be
  - the names and versions in compose.yaml are those of the rest
  - the alert rules pass promtool, and they and the dashboard name metrics and labels that there are

    python3 tests/deploy/validate.py path/to/leasehold [--deploy DIR] [--only kubernetes|helm|docker|systemd|compose|prometheus]
"""

import argparse
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import charts  # noqa: E402  (beside this file)
import install  # noqa: E402  (in tests/bench)
import monitoring  # noqa: E402  (beside this file)

SCHEMAS = ("1.29", "1.37")
SIDECARS = ("deployment", "job", "cronjob", "rollout")
SHARED = ("shared", "daemonset")
ENDLESS = ("Deployment", "DaemonSet", "Rollout")
# Reading the rights of a process, not its size: 0 is the best, 10 the worst; an unhardened unit has 9.6.
EXPOSED_AT_MOST = 1.3
IMAGE_AT_MOST = 14 << 20
# The libraries and certificates in it: all that can be said of a debug build, whose binary is five times as large.
BESIDES_AT_MOST = 5 << 20
# After max_sigterm_delay leases are given back within 5 s; one more to end.
GIVE_BACK = 6


class Findings(list):
    """What is wrong, each with the place."""

    def expect(self, holds, text):
        if not holds:
            self.append(text)
        return holds


def kubernetes(deploy, leasehold, findings):
    install.ensure("python", "kustomize")
    sys.path.insert(0, install.python())
    import yaml
    containers = {}
    for overlay in (*SIDECARS, *SHARED, "monitoring"):
        rendered = run([*install.kustomize(), os.path.join(deploy, "kubernetes", overlay)])
        if not findings.expect(rendered.returncode == 0, f"{overlay}: {rendered.stderr.strip()}"):
            continue
        container = check_rendered(overlay, rendered.stdout, overlay in SIDECARS, leasehold, findings)
        if overlay in SIDECARS:
            containers[overlay] = json.dumps(container, sort_keys=True)
    findings.expect(len(set(containers.values())) <= 1, "the sidecar is not the same in " + ", ".join(containers))
    with open(os.path.join(deploy, "kubernetes", "egress", "networkpolicy.yaml")) as file:
        findings += against_schemas(yaml.safe_load(file))
    findings += monitoring.rule_resource(deploy)


def check_rendered(name, text, sidecar, leasehold, findings):
    """What was rendered, against the schemas and the rules. Returns leasehold's container, if there is one."""
    import yaml
    resources = [resource for resource in yaml.safe_load_all(text) if resource]
    misshapen = [f"{name}: {finding}" for resource in resources for finding in against_schemas(resource)]
    if misshapen:
        findings += misshapen
        return None
    kinds = {}
    for resource in resources:
        kinds.setdefault(resource["kind"], []).append(resource)
    where = Findings()
    container = check_pod(sidecar, kinds, leasehold, where) if "ConfigMap" in kinds else None
    where += monitoring.resources(kinds)
    findings += [f"{name}: {finding}" for finding in where]
    return container


def against_schemas(resource):
    """Of Kubernetes' own kinds. A Rollout has a Deployment's Pods, and steps of its own; the others are the operator's."""
    import kubernetes_validate as schemas
    if resource["apiVersion"].startswith("monitoring.coreos.com/"):
        return
    if resource["apiVersion"].startswith("argoproj.io/") and resource["kind"] == "Rollout":
        spec = {key: value for key, value in resource["spec"].items() if key != "strategy"}
        resource = {**resource, "apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}
    for version in SCHEMAS:
        name = f"{resource.get('kind')} {resource.get('metadata', {}).get('name')}, schema {version}"
        try:
            schemas.validate(resource, version, strict=True)
        except schemas.ValidationError as error:
            yield f"{name}: {'.'.join(str(step) for step in error.path)}: {error.message[:200]}"
        except (schemas.InvalidSchemaError, schemas.SchemaNotFoundError) as error:
            yield f"{name}: {error!r}"


def check_pod(sidecar, kinds, leasehold, findings):
    """The rules for the overlay's one workload. Returns leasehold's container."""
    workload, = (resource for kind in (*ENDLESS, "Job", "CronJob") for resource in kinds.get(kind, []))
    spec = workload["spec"]
    template = (spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"]
    pod = template["spec"]
    starting, running = pod.get("initContainers", []), pod["containers"]
    place = starting if sidecar else running
    if not findings.expect(place and place[0]["name"] == "leasehold", "leasehold is not the first container"):
        return None
    container = place[0]

    findings.expect(container.get("restartPolicy") == ("Always" if sidecar else None), "not a native sidecar")
    findings.expect(workload["kind"] in ENDLESS or pod.get("restartPolicy") in ("Never", "OnFailure"),
                    "a job's Pod must be able to end")
    findings.expect(container.get("terminationMessagePolicy") == "FallbackToLogsOnError", "a wrong setting is not shown")
    findings.expect(not container.get("lifecycle"), "a sidecar's hook runs while the app still works")
    for each in starting + running:
        name, security = each["name"], each.get("securityContext", {})
        wanted = {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
                  "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
        for key, value in wanted.items():
            findings.expect(security.get(key) == value, f"{name}: securityContext.{key} is {security.get(key)}")
        findings.expect(not security.get("privileged"), f"{name} is privileged")
        resources = each.get("resources", {})
        findings.expect({"cpu", "memory"} <= set(resources.get("requests", {})), f"{name}: no resource requests")
        findings.expect("memory" in resources.get("limits", {}), f"{name}: no memory limit")
        findings.expect(":" in each["image"] and not each["image"].endswith(":latest"), f"{name}: image has no version")
        text = json.dumps(each.get("env", [])).lower()
        findings.expect("password" not in text and "secret" not in text, f"{name}: a credential in its environment")
        mounts = {mount["name"] for mount in each.get("volumeMounts", [])}
        findings.expect(each is container or "leasehold" not in mounts, f"{name} sees leasehold's token for Vault")
        findings.expect(each is container or "leasehold-state" not in mounts, f"{name} sees leasehold's credentials")
    findings.expect(pod.get("automountServiceAccountToken") is False, "every container would get a Kubernetes token")

    # The service account, the settings and the volume are those of this very rendering.
    accounts = [account["metadata"]["name"] for account in kinds.get("ServiceAccount", [])]
    findings.expect(pod.get("serviceAccountName") in accounts, f"no ServiceAccount {pod.get('serviceAccountName')}")
    maps = {entry["metadata"]["name"]: entry["data"] for entry in kinds.get("ConfigMap", [])}
    sources = [source for volume in pod["volumes"] if volume["name"] == "leasehold"
               for source in volume["projected"]["sources"]]
    named = [source["configMap"]["name"] for source in sources if source.get("configMap", {}).get("name") in maps]
    if not findings.expect(len(named) == 1, "the volume does not carry the generated ConfigMap"):
        return container
    settings = maps[named[0]]["leasehold.toml"]
    config = check_settings(settings, sources, container, leasehold, findings)
    memory = [volume["name"] for volume in pod["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
    places = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in memory]
    findings.expect(os.path.dirname(config.get("state_file", "/")) in places, "state_file is not in memory")

    # Probes, by what each endpoint means.
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    http = config.get("http", "127.0.0.1:9090")
    findings.expect(http == f"0.0.0.0:{ports.get('metrics')}", f"the kubelet cannot reach http = {http}")
    for probe, path in (("startupProbe", "/startup"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        asked = container.get(probe, {}).get("httpGet", {})
        findings.expect(asked == {"path": path, "port": "metrics"}, f"{probe} asks {asked}")
    startup = container.get("startupProbe", {})
    findings.expect(startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3) >= 300,
                    "the startup probe restarts leasehold before Vault had time to come back")

    # Times.
    needed = seconds(config.get("max_sigterm_delay", "20s")) + GIVE_BACK
    grace = pod.get("terminationGracePeriodSeconds", 30)
    findings.expect(grace >= needed, f"terminationGracePeriodSeconds {grace} is below {needed}")
    findings.expect(startup and "admin" not in config, "the settings name the admin address, which commands would not find")
    admin = {entry["name"]: entry.get("value") for entry in container.get("env", [])}.get("LEASEHOLD_ADMIN", "")
    findings.expect(os.path.dirname(admin) in places, "other containers can reach the admin address")

    # Addresses.
    urls = {entry["value"] for each in starting + running for entry in each.get("env", [])
            if entry["name"] == "DATABASE_URL"}
    if sidecar:
        findings.expect("listen" not in config and not config.get("listen_public"), "a sidecar listens on loopback")
        findings.expect(urls and all("@localhost:6432/" in url for url in urls), f"DATABASE_URL is {urls}")
    else:
        check_shared(kinds, template, ports, config, findings)
    return container


def check_shared(kinds, template, ports, config, findings):
    labels = template["metadata"]["labels"].items()
    findings.expect(config.get("listen_public") and config["listen"] == f"0.0.0.0:{ports.get('postgres')}",
                    "the Service's clients cannot reach it")
    findings.expect(config.get("allow_addresses") or config.get("tls", {}).get("client_ca_file"),
                    "the whole world may connect")
    policies = kinds.get("NetworkPolicy", [])
    if findings.expect(policies, "no NetworkPolicy: everybody in the cluster has the database"):
        policy = policies[0]["spec"]
        findings.expect(policy["podSelector"]["matchLabels"].items() <= labels, "the NetworkPolicy misses the Pods")
        findings.expect("Ingress" in policy["policyTypes"], "the NetworkPolicy is not about who comes in")
        for rule in policy["ingress"]:
            findings.expect(rule.get("from") and all(peer for peer in rule["from"]), "the NetworkPolicy lets all in")
            findings.expect(all(port["port"] in ports for port in rule["ports"]), "the NetworkPolicy names no port of it")
    service = kinds["Service"][0]["spec"]
    findings.expect(service["selector"].items() <= labels, "the Service misses the Pods")
    findings.expect(all(port["targetPort"] in ports for port in service["ports"]), "the Service names no port of it")
    findings.expect(seconds(config.get("min_sigterm_delay", "0s")) >= 5, "a stopping Pod refuses what the Service sends")


def check_settings(text, sources, container, leasehold, findings):
    """leasehold takes the settings, and each file in them is in the volume."""
    config = tomllib.loads(text)
    directory, = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "leasehold")
    findings.expect(f"--config={directory}/leasehold.toml" in container["args"], "another file is read")
    carried = {"leasehold.toml"}
    for source in sources:
        carried |= {item["path"] for item in source.get("configMap", {}).get("items", [])}
        carried |= {source[kind]["path"] for kind in ("serviceAccountToken",) if kind in source}
    named = set(re.findall(re.escape(directory) + r"/([\w.-]+)", text))
    findings.expect(named <= carried, f"not in the volume: {named - carried}")
    findings.expect(config["vault"]["addr"][0].startswith("https://"), "Vault without TLS")
    findings.expect("sslmode" not in text and "skip_verify" not in text, "a certificate is not verified")
    findings += accepted(leasehold, text)
    return config


def accepted(leasehold, settings):
    """Runs leasehold on the settings, in a place where it cannot do harm: it must get as far as binding its addresses."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        settings = settings.replace('"/state/', f'"{directory}/')
        local = re.sub(r"/(?:etc|run/credentials)/(?:leasehold|leasehold\.service)/(?=[\w.-]+)", f"{directory}/", settings)
        # One address of its own that cannot be bound ends it, with 71, after all else has been read.
        local = re.sub(r"(?m)^(listen|listen_public|http|admin) *=.*$", "", local)
        local = f'listen = "{directory}/absent"\nhttp = "off"\nadmin = "off"\n{local}'
        for name in ("vault-ca.crt", "postgres-ca.crt"):
            shutil.copy(os.path.join(ROOT, "tests", "deploy", "ca.crt"), os.path.join(directory, name))
        with open(os.path.join(directory, "leasehold.toml"), "w") as file:
            file.write(local)
        done = run([leasehold, "run", "--config", os.path.join(directory, "leasehold.toml")],
                   env={"HOME": directory}, timeout=20)
        if done.returncode != 71:
            yield f"leasehold refuses the settings, {done.returncode}: {done.stderr.strip()[-300:]}"


def helm(deploy, leasehold, findings):
    install.ensure("python", "helm")
    sys.path[:0] = [install.python(), install.helm()]
    findings += monitoring.chart_copy(deploy)
    for name, text, sidecar in charts.rendered(os.path.join(deploy, "helm"), findings):
        check_rendered(name, text, sidecar, leasehold, findings)


def docker(_, leasehold, findings):
    install.ensure("python")
    dockerfiles = [os.path.join(ROOT, "Dockerfile"), *glob.glob(os.path.join(ROOT, "deploy", "examples", "*", "Dockerfile"))]
    findings.expect(len(dockerfiles) == 5, f"Dockerfiles: {dockerfiles}")
    linted = run([os.path.join(install.python(), "bin", "hadolint"), "--no-color", *dockerfiles])
    findings.expect(linted.returncode == 0, f"hadolint: {linted.stdout}{linted.stderr}")
    with open(dockerfiles[0]) as file:
        stages = file.read().split("\nFROM ")
    findings.expect(re.search(r"^USER [1-9]\d*:[1-9]\d*$", stages[-1], re.M), "the image runs as root")
    findings.expect(stages[-1].startswith("scratch"), "the last stage is not empty at its beginning")
    findings += runs_alone(leasehold)


def runs_alone(leasehold):
    """The step of the Dockerfile that collects the image, done here; then the binary runs in that root alone."""
    with open(os.path.join(ROOT, "Dockerfile")) as file:
        step = re.search(r"^RUN (mkdir -p /root-of-image.*?[^\\])$", file.read(), re.M | re.S)
    if not step:
        yield "the Dockerfile does not collect the image in /root-of-image"
        return
    with tempfile.TemporaryDirectory() as root:
        done = run(["sh", "-euc", step[1].replace("target/release/leasehold", leasehold).replace("/root-of-image", root)])
        if done.returncode != 0:
            yield f"what collects the image: {done.stderr}"
            return
        size = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(root) for name in names)
        besides = size - os.path.getsize(leasehold)
        is_release = os.path.basename(os.path.dirname(os.path.abspath(leasehold))) == "release"
        if besides > BESIDES_AT_MOST or is_release and size > IMAGE_AT_MOST:
            yield f"the image has {size >> 20} MiB, {besides >> 20} of them beside the binary"
        # What a container's runtime adds. The name is one that only this file knows.
        with open(os.path.join(root, "etc", "hosts"), "w") as file:
            file.write("127.0.0.1 vault.image.test\n")
        os.chmod(root, 0o755)
        os.rename(os.path.join(root, os.path.basename(leasehold)), os.path.join(root, "leasehold"))
        # chroot needs root, or a namespace in which one is.
        enter = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
        program = [*enter, "chroot", *(["--userspec=65532:65532"] if os.geteuid() == 0 else []), root, "/leasehold"]
        done = run([*program, "--version"])
        if done.returncode != 0:
            yield f"the binary does not run in the image's root: {done.stderr.strip()}"
            return
        # A name is looked up, and the system's certificates are read: what libraries fetch while they run is there too.
        command = [*program, "run", "--listen=127.0.0.1:0", "--http=off", "--admin=off", "--log-level=debug",
                   "--upstream=postgresql://db/", "--vault-path=database/creds/app", "--vault-addr=https://vault.image.test:1",
                   "--vault-auth-method=approle", "--vault-auth-role-id=none"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   env={"PATH": os.environ["PATH"]})
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.terminate()
        log = process.communicate(timeout=30)[1]
        if "Connection refused" not in log:
            yield f"in the image's root a name is not found, or a certificate: {log[-2000:]}"


def systemd(deploy, leasehold, findings):
    if shutil.which("systemd-analyze") is None:
        install.debian("systemd-analyze", "systemd")
    source = os.path.join(deploy, "systemd", "leasehold.service")
    with tempfile.TemporaryDirectory() as directory:
        unit = os.path.join(directory, "leasehold.service")
        with open(source) as file:
            text = file.read()
        findings.expect("Type=notify\n" in text, "not Type=notify")
        findings.expect("RestartPreventExitStatus=64 78\n" in text, "a wrong setting would be tried again for ever")
        # `verify` looks for the program.
        with open(unit, "w") as file:
            file.write(text.replace("/usr/local/bin/leasehold", os.path.abspath(leasehold)))
        verify(unit, findings)
        judged = run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit])
        level = re.search(r"exposure level for \S+: ([\d.]+)", judged.stdout)
        findings.expect(level and float(level[1]) <= EXPOSED_AT_MOST,
                        f"systemd-analyze security: {level[0] if level else judged.stderr}")
        # And with the drop-in, which `verify` takes from beside it.
        os.mkdir(f"{unit}.d")
        drop_in = shutil.copy(os.path.join(deploy, "systemd", "state-file.conf"), f"{unit}.d")
        verify(unit, findings)
        with open(drop_in) as file:
            state = file.read()
        findings.expect("RuntimeDirectoryPreserve=restart\n" in state and "LEASEHOLD_STATE_FILE=/run/leasehold/" in state,
                        "the state file is gone when the process is")
        stops = seconds(re.search(r"^TimeoutStopSec=(\S+)$", text, re.M)[1])
    with open(os.path.join(deploy, "systemd", "leasehold.toml")) as file:
        settings = file.read()
    needed = seconds(tomllib.loads(settings).get("max_sigterm_delay", "20s")) + GIVE_BACK
    findings.expect(stops >= needed, f"TimeoutStopSec {stops} is below {needed}")
    findings += accepted(leasehold, settings)


def verify(unit, findings):
    verified = run(["systemd-analyze", "verify", "--man=no", unit])
    said = [line for line in verified.stderr.splitlines() if "leasehold" in line]
    findings.expect(verified.returncode == 0 and not said, f"systemd-analyze verify: {verified.stderr}")


def compose(deploy, _, findings):
    install.ensure("python")
    sys.path.insert(0, install.python())
    import yaml
    with open(os.path.join(deploy, "compose.yaml")) as file:
        services = yaml.safe_load(file)["services"]
    for name, service in services.items():
        findings.expect("build" in service or re.search(r":[\d.]+", service.get("image", "")), f"{name}: no version")
        for other in service.get("depends_on", {}):
            findings.expect(other in services, f"{name} depends on {other}, which there is not")
    if shutil.which("docker"):
        done = run(["docker", "compose", "--file", os.path.join(deploy, "compose.yaml"), "config", "--quiet"])
        # A docker without the plug-in says so in its own words.
        if "not a docker command" not in done.stderr and "unknown flag" not in done.stderr:
            findings.expect(done.returncode == 0, f"docker compose config: {done.stderr.strip()}")


def prometheus(deploy, _, findings):
    install.ensure("python", "promtool")
    sys.path.insert(0, install.python())
    findings += monitoring.alerts(os.path.join(deploy, "prometheus", "alerts.yaml"), ROOT, install.promtool())
    findings += monitoring.dashboard(os.path.join(deploy, "grafana", "leasehold.json"), ROOT)


def seconds(text):
    """`90s`, `2m` or a bare number, as leasehold and systemd write them."""
    number, unit = re.fullmatch(r"(\d+)(s|m|h)?", str(text)).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600, None: 1}[unit]


def run(command, timeout=120, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **options)


PARTS = {"kubernetes": kubernetes, "helm": helm, "docker": docker, "systemd": systemd, "compose": compose, "prometheus": prometheus}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("leasehold")
    parser.add_argument("--deploy", default=os.path.join(ROOT, "deploy"))
    parser.add_argument("--only", action="append", choices=PARTS)
    options = parser.parse_args()
    findings = Findings()
    for name in options.only or PARTS:
        found = Findings()
        PARTS[name](options.deploy, os.path.abspath(options.leasehold), found)
        findings += [f"{name}: {finding}" for finding in found]
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
