#!/usr/bin/env python3
"""Every link in the documents leads somewhere: a file that is there, and a heading in it. Exit code 0, or 1 with those that do not.

    python3 tests/deploy/links.py
"""

import glob
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import monitoring  # noqa: E402  (beside this file)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def broken(page):
    """The links of a page that lead nowhere; addresses of other sites are not followed."""
    with open(page) as file:
        links = re.findall(r"\]\(([^)\s]+)\)", file.read())
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        if not os.path.exists(target) or anchor and target.endswith(".md") and anchor not in monitoring.anchors(target):
            yield f"{os.path.relpath(page, ROOT)}: {link}"


def main():
    pages = glob.glob(os.path.join(ROOT, "*.md")) + glob.glob(os.path.join(ROOT, "docs", "*.md"))
    found = [link for page in sorted(pages) for link in broken(page)]
    for link in found:
        print(link, file=sys.stderr)
    return 1 if found or len(pages) < 10 else 0


if __name__ == "__main__":
    sys.exit(main())
