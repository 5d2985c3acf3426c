#!/usr/bin/env python3
"""Writes docs/operators.md from what the tests of the gradient measured.

Usage: tools/operators.py REPORT.json... > docs/operators.md
REPORT is what `gradient_test --gtest_output=json:REPORT` writes: every test of a form of an operator records the
properties operator, form and error; one records the operators that have no gradient.
"""
import json
import sys

HEAD = """# Operators that can be trained

Made by `make operators-table` from what the tests measured; do not edit. Every form below is a test: each gradient
entry against central differences of an independent reference in double precision. *Error* is the largest difference of
an entry, relative to the largest entry of its parameter; the tests refuse more than 1e-4.

Operator sets 7 to 17 are read (older forms are rewritten first). `ganglion gradient` names every operator of a model
that is not in this list, at once. Numbers are FP32.

| operator | form | error |
|---|---|---|
"""


def tests(reports):
    for path in reports:
        with open(path, encoding="utf-8") as f:
            for suite in json.load(f)["testsuites"]:
                yield from suite["testsuite"]


def main():
    forms, constant = {}, set()
    for t in tests(sys.argv[1:]):
        if "operator" in t and t.get("failures"):
            sys.exit(f"{t['name']} fails; no table of failing tests")
        if "operator" in t:
            forms.setdefault(t["operator"], {})[t["form"]] = t["error"]
        constant.update(t.get("without_gradient", "").split())
    if not forms or not constant:
        sys.exit("the reports have no forms of operators")
    print(HEAD, end="")
    for op in sorted(forms):
        for i, (form, error) in enumerate(forms[op].items()):
            print(f"| {'`' + op + '`' if i == 0 else ''} | {form} | {error} |")
    print("\nRead without a gradient, because their results are integers, truths or constant between jumps:\n")
    print(", ".join(f"`{op}`" for op in sorted(constant | {"Constant"})) + ".")


main()
