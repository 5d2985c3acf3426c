#!/usr/bin/env python3
"""Checks what is packaged against itself: alerts, runbook, dashboard and metrics name the same things.

  - each alert has summary, description, severity and a runbook line that leads to a section of docs/runbook.md with
    Meaning, Look at and Do; each section there belongs to an alert
  - alerts, their tests and the dashboard use only metrics and labels of the table in docs/runbook.md
  - panels that the runbook names are on the dashboard, and every alert has a case in alerts_test.yml
  - a node is given more time to stop than it takes to drain

Needs the standard library only. Usage: packaging/check.py. Exit code 0 when clean; each finding is one line.
"""
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
findings = []


def check(good, message):
    if not good:
        findings.append(message)


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text).group(1))


runbook = (ROOT / "docs/runbook.md").read_text()
alerts = (PACKAGING / "prometheus/alerts.yml").read_text()
alerts_test = (PACKAGING / "prometheus/alerts_test.yml").read_text()
dashboard = json.loads((PACKAGING / "grafana/ganglion.json").read_text())

# The table of metrics: name to type and labels.
metrics = {}
for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*) \|", runbook, re.M):
    metrics["ganglion_" + name] = (kind, set(filter(None, labels.split(", "))))
check(len(metrics) > 20, "docs/runbook.md: no table of metrics")


def check_expression(where, text):
    for name, selector in re.findall(r"\b(ganglion_\w+)(?:\{([^}]*)\})?", text):
        histogram = re.sub(r"_(bucket|sum|count)$", "", name)
        if name not in metrics and metrics.get(histogram, ("", ()))[0] != "histogram":
            findings.append(f"{where}: {name} is not in the table of docs/runbook.md")
            continue
        kind, labels = metrics.get(name) or metrics[histogram]
        is_bare = name in metrics and kind == "histogram"
        check(not is_bare, f"{where}: {name} is a histogram; use _bucket, _sum or _count")
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector or ""):
            check(label in labels | {"job", "instance", "le"}, f"{where}: {name} has no label {label}")


# Alerts and runbook.
sections = dict(re.findall(r"^## (Ganglion\w+)\n(.*?)(?=^## |\Z)", runbook, re.M | re.S))
named = []
for block in re.split(r"^      - alert: ", alerts, flags=re.M)[1:]:
    name = block.split("\n", 1)[0]
    named.append(name)
    for wanted in ("summary:", "description:", "severity:", f"runbook: docs/runbook.md#{name.lower()}\n"):
        check(wanted in block, f"alerts.yml: {name} has no {wanted.strip()}")
    check(name in sections, f"docs/runbook.md: no section {name}")
    check(f'"{name}"' in alerts_test, f"alerts_test.yml: no case for {name}")
    expression = re.search(r"expr: \|\n(.*?)\n        for:", block, re.S)
    check(expression, f"alerts.yml: {name} has no expr")
    check_expression(f"alerts.yml: {name}", expression.group(1) if expression else "")
check(named, "alerts.yml: no alerts")
for name, text in sections.items():
    check(name in named, f"docs/runbook.md: {name} is no alert")
    for part in ("**Meaning.**", "**Look at.**", "**Do.**"):
        check(part in text, f"docs/runbook.md: {name} has no {part}")
anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", runbook, re.M)}
for anchor in re.findall(r"\]\(#([\w-]+)\)", runbook):
    check(anchor in anchors, f"docs/runbook.md: #{anchor} leads nowhere")
for series in re.findall(r"- series: '(.*)'", alerts_test):
    check_expression("alerts_test.yml", series)

# The dashboard.
panels = dashboard["panels"]
ids = [panel["id"] for panel in panels]
check(len(ids) == len(set(ids)), "ganglion.json: two panels have the same id")
taken = set()
for panel in panels:
    at = panel["gridPos"]
    cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
    check(not cells & taken and at["x"] + at["w"] <= 24, f"ganglion.json: {panel['title']} lies on another panel")
    taken |= cells
    for target in panel.get("targets", []):
        check_expression(f"ganglion.json: {panel['title']}", target["expr"])
used = json.dumps(dashboard)
for name in metrics:
    check(name in used, f"ganglion.json: {name} is on no panel")
titles = {panel["title"] for panel in panels}
for title in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", runbook):
    check(title in titles, f"docs/runbook.md: the dashboard has no panel {title}")

# Stopping takes longer than draining.
configmap = (PACKAGING / "kubernetes/configmap.yaml").read_text()
drain = seconds(re.search(r"^\s*drain: (\d+s)$", configmap, re.M).group(1))
deployment = (PACKAGING / "kubernetes/deployment.yaml").read_text()
grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", deployment).group(1))
pre_stop = int(re.search(r'command: \[sleep, "(\d+)"\]', deployment).group(1))
check(grace >= pre_stop + drain + 5, f"deployment.yaml: {grace}s to stop, {pre_stop}s and {drain}s of draining")
unit = (PACKAGING / "systemd/ganglion.service").read_text()
timeout = seconds(re.search(r"TimeoutStopSec=(\w+)", unit).group(1))
check(timeout >= drain + 5, f"ganglion.service: {timeout}s to stop, {drain}s of draining")

for finding in findings:
    print(finding)
sys.exit(1 if findings else 0)
