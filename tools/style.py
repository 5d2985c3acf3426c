#!/usr/bin/env python3
"""Style as a test: what ARCHITECTURE.md says of the modules, and a few rules of the layers, checked on every build.

  - every module under src/ is in the module table of ARCHITECTURE.md, and every module of the table exists
  - a module includes only modules that the table allows it (its column "uses"), and none of a higher layer
  - layer 2 reads no clock and no randomness of its own, throws nothing, locks nothing, does no input or output
  - nothing below apps/ throws; nothing but layer 3 and above includes what layer 3 wraps
  - every header begins with a comment that says what it is, and has #pragma once
  - no file is longer than a limit, no line wider than a limit

Usage: tools/style.py [ROOT]. Exit code 0 when clean; each finding is one line FILE:LINE message.
"""
import re
import sys
from pathlib import Path

MAX_LINES = 700
MAX_WIDTH = 140

# What only some modules may include.
WRAPPED = {
    "runtime": [r"onnxruntime"],
    "data": [r"zlib\.h", r"png\.h", r"jpeglib\.h", r"zip\.h"],
    "node": [r"yaml-cpp"],
    "net": [r"boost/", r"grpcpp/", r"grpc/", r"google/", r"inference\.", r"net/inference\."],
    "telemetry": [r"prometheus/", r"spdlog/"],
    "wire": [r"simdjson"],
    "collective": [r"gloo/"],
    "crypto": [r"openssl/"],
}

LAYER2_FORBIDDEN = [
    (r"::now\(\)", "reads a clock; take `now` as an argument"),
    (r"\bSteadyClock\b|\bClock&", "holds a clock; take `now` as an argument"),
    (r"std::(random_device|mt19937|rand\b)", "draws its own randomness; take random bits as an argument"),
    (r"\b(rand|srand|time)\s*\(", "calls a global source of randomness or time"),
    (r"std::(mutex|lock_guard|unique_lock|thread|jthread|atomic|condition_variable)\b", "locks or starts threads"),
    (r"std::(ifstream|ofstream|fstream|cout|cerr|filesystem)\b|\bf(open|printf|puts)\s*\(", "does input or output"),
]
THROWS = [(r"\bthrow\b(?!\()", "throws; return a Status")]


def strip(text: str) -> str:
    """Comments and string literals blanked, line structure kept."""
    out = []
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"\((?:.|\n)*?\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    at = 0
    for m in pattern.finditer(text):
        out.append(text[at : m.start()])
        out.append(re.sub(r"[^\n]", " ", m.group()))
        at = m.end()
    out.append(text[at:])
    return "".join(out)


def read_table(path: Path):
    """Rows `| layer | module | uses | ... |` of the module table."""
    modules = {}
    for line in path.read_text().splitlines():
        m = re.match(r"\|\s*(\d)\s*\|\s*`(\w+)`\s*\|\s*([^|]*)\|", line)
        if m:
            modules[m.group(2)] = (int(m.group(1)), set(re.findall(r"`(\w+)`", m.group(3))))
    return modules


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    findings = []

    def find(path, line, message):
        findings.append(f"{path.relative_to(root)}:{line} {message}")

    architecture = root / "ARCHITECTURE.md"
    modules = read_table(architecture)
    if not modules:
        print(f"{architecture}: no module table found")
        return 1
    folders = {p.name for p in (root / "src").iterdir() if p.is_dir()}
    for name in sorted(folders - modules.keys()):
        findings.append(f"src/{name}: module is missing in the table of ARCHITECTURE.md")
    for name in sorted(modules.keys() - folders):
        findings.append(f"ARCHITECTURE.md: module `{name}` does not exist under src/")
    for name, (layer, uses) in modules.items():
        for other in uses:
            if other not in modules:
                findings.append(f"ARCHITECTURE.md: `{name}` uses `{other}`, which is no module")
            elif modules[other][0] > layer:
                findings.append(f"ARCHITECTURE.md: `{name}` (layer {layer}) uses `{other}` of layer {modules[other][0]}; dependencies point down")

    for path in sorted(p for d in ("src", "apps", "include", "bench", "fuzz", "examples", "tests") for p in (root / d).rglob("*")):
        if path.suffix not in {".h", ".cc", ".c"}:
            continue
        text = path.read_text()
        code = strip(text)
        lines = text.splitlines()
        if len(lines) > MAX_LINES:
            find(path, len(lines), f"has {len(lines)} lines, limit {MAX_LINES}; does it still hold one idea?")
        for i, line in enumerate(lines, 1):
            if len(line) > MAX_WIDTH:
                find(path, i, f"is {len(line)} columns wide, limit {MAX_WIDTH}")
        if path.suffix == ".h":
            if not re.match(r"(//|/\*)", text):
                find(path, 1, "header does not begin with a comment that says what it is")
            if "#pragma once" not in text and "#ifndef GANGLION_" not in text:
                find(path, 1, "header has no #pragma once")
        relative = path.relative_to(root).parts
        if relative[0] != "src":
            continue
        module = relative[1]
        if module not in modules:
            continue
        is_test = path.stem.endswith("_test")
        layer, uses = modules[module]
        rules = list(THROWS)
        if layer <= 2 and not is_test:
            rules += LAYER2_FORBIDDEN if layer == 2 else []
        for pattern, message in rules if not is_test else []:
            for m in re.finditer(pattern, code):
                find(path, code.count("\n", 0, m.start()) + 1, f"{message} (layer {layer})")
        if is_test:
            continue
        for m in re.finditer(r'^\s*#include\s+[<"]([^>"]+)[>"]', text, re.M):
            included, line = m.group(1), text.count("\n", 0, m.start()) + 1
            other = included.split("/")[0]
            if '"' in m.group(0) and other in modules and other != module and other not in uses:
                find(path, line, f"`{module}` includes {included}, but ARCHITECTURE.md does not list `{other}` among what it uses")
            for owner, patterns in WRAPPED.items():
                if module != owner and any(re.match(p, included) for p in patterns):
                    find(path, line, f"`{module}` includes {included}, which only `{owner}` wraps")

    for f in findings:
        print(f)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
