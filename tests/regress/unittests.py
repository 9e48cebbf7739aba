"""Unit tests, of which each prints a JSON line: as a program, those of the package `tests` in the working directory."""

import json
import os
import sys
import unittest


class Lines(unittest.TestResult):
    """The verdict of a test with subtests is its worst."""

    def startTest(self, test):
        super().startTest(test)
        self.verdict = ("ok", "")

    def stopTest(self, test):
        super().stopTest(test)
        verdict, why = self.verdict
        print(json.dumps({"test": test.id(), "verdict": verdict, "why": why}), flush=True)

    def addError(self, test, error):
        super().addError(test, error)
        self.verdict = ("FAILED", error[0].__name__)

    addFailure = addError

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.verdict = ("FAILED", error[0].__name__)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.verdict = ("skipped", reason)

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        self.verdict = ("expected failure", "")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.verdict = ("unexpected success", "")


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    unittest.defaultTestLoader.discover("tests", top_level_dir=".").run(Lines())
