"""Runs the tests of the working directory by pytest, with the arguments given; prints a JSON line for each test."""

import json
import sys

import pytest


class Lines:
    """The verdict of a test is the first of its parts that did not pass."""

    def __init__(self):
        self.verdicts = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if item.nodeid not in self.verdicts:
            if report.skipped:
                self.verdicts[item.nodeid] = ("expected failure" if hasattr(report, "wasxfail") else "skipped", "")
            elif report.failed:
                self.verdicts[item.nodeid] = ("FAILED", call.excinfo.typename if call.excinfo else report.longreprtext)
        return report

    def pytest_runtest_logfinish(self, nodeid):
        verdict, why = self.verdicts.pop(nodeid, ("ok", ""))
        print("\n" + json.dumps({"test": nodeid, "verdict": verdict, "why": why}), flush=True)


sys.exit(pytest.main(sys.argv[1:], plugins=[Lines()]))
