#!/usr/bin/env python3
"""The steps of docs/install.md for systemd, done as they are written, in a directory in place of /. Exit code 0, or 1 with what failed.

What makes a group, edits a file or speaks to systemd is not done here: the unit must name that group, the settings must do as they
are, and the unit must be there under the name that is enabled. `check` is asked offline.

    python3 tests/deploy/steps.py path/to/leasehold
"""

import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What those of the commands say that have nothing to ask here: no leasehold, or another one.
ELSEWHERE = (0, 1, 69)


def steps():
    """The lines of the first block of the section on systemd."""
    with open(os.path.join(ROOT, "docs", "install.md")) as file:
        section = file.read().split("\n## systemd\n")[1].split("\n## ")[0]
    return [line.strip() for line in section.split("\n\n")[0].splitlines() if line.startswith("    ")]


def below(root, text):
    """The same, with absolute paths of our own below this directory."""
    return re.sub(r"(?<=[ =\"])/(etc|usr/local|run)/", rf"{root}/\1/", text)


def do(step, root, leasehold):
    """Does one step. Returns what is wrong."""
    word = step.split()[0]
    if word == "groupadd":
        return None if f"Group={step.split()[-1]}\n" in unit() else f"the unit has another group than {step}"
    if word == "systemctl":
        names = [name for name in re.findall(r"enable --now (\S+)", step)
                 if not os.path.exists(f"{root}/etc/systemd/system/{name}.service")]
        return f"{step}: no unit {names}" if names else None
    if word.startswith("${EDITOR"):
        path = below(root, step).split()[-1]
        with open(path) as file:
            settings = below(root, file.read())
        with open(path, "w") as file:
            file.write(settings)
        return None
    line = below(root, step.replace("target/release/leasehold", leasehold).replace("out/secret_id", f"{root}/secret_id"))
    if word == "leasehold":
        line = line.replace("leasehold", f"{root}/usr/local/bin/leasehold", 1).replace(" check ", " check --offline ")
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True)
    right = ELSEWHERE if " status " in line else (0,)
    return None if done.returncode in right else f"{step}: {done.returncode}\n{done.stdout}{done.stderr}"


def unit():
    with open(os.path.join(ROOT, "deploy", "systemd", "leasehold.service")) as file:
        return file.read()


def main():
    leasehold = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as root:
        for directory in ("usr/local/bin", "etc/systemd/system", "run"):
            os.makedirs(os.path.join(root, directory))
        with open(os.path.join(root, "secret_id"), "w") as file:
            file.write("none")
        done = steps()
        wrong = [finding for step in done if (finding := do(step, root, leasehold))]
        # What the unit runs and reads is what was installed.
        named = set(re.findall(r"(?<=[ =:])(/(?:usr|etc)/[\w./-]+)", unit())) - {"/usr/local/share/doc/leasehold/README.md"}
        wrong += [f"the unit names {path}, which no step installs" for path in named if not os.path.exists(f"{root}{path}")]
    for finding in wrong:
        print(finding, file=sys.stderr)
    return 1 if wrong or len(done) < 8 else 0


if __name__ == "__main__":
    sys.exit(main())
