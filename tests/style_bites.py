"""Plants one violation of each rule in a copy of the tree's sources and expects tools/style.py to name every one."""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

root = Path(sys.argv[1])
planted = {
    "src/cascade/sin_a.cc": ('#include "node/node.h"\n', "`cascade` includes node/node.h"),
    "src/cascade/sin_b.cc": ("int f() { return std::chrono::steady_clock::now().time_since_epoch().count(); }\n", "reads a clock"),
    "src/cascade/sin_c.cc": ("void f() { throw 1; }\n", "throws"),
    "src/calibration/sin_d.cc": ("std::mutex m;\n", "locks or starts threads"),
    "src/calibration/sin_e.cc": ("std::mt19937 g;\n", "draws its own randomness"),
    "src/tensor/sin_f.h": ("#pragma once\nint x;\n", "does not begin with a comment"),
    "src/gradient/sin_g.cc": ("#include <onnxruntime_c_api.h>\n", "which only `runtime` wraps"),
    "src/stray/stray.h": ("// A module nobody listed.\n#pragma once\n", "module is missing in the table"),
    "src/optimizer/sin_h.cc": ("// not code: throw, ::now()\nconst char* s = \"throw ::now()\";\n", None),  # comments and strings are no sins
}
with tempfile.TemporaryDirectory() as scratch:
    copy = Path(scratch)
    for name in ("src", "apps", "include"):
        shutil.copytree(root / name, copy / name)
    shutil.copy(root / "ARCHITECTURE.md", copy)
    run = lambda: subprocess.run([sys.executable, str(root / "tools/style.py"), str(copy)], capture_output=True, text=True)
    clean = run()
    if clean.returncode != 0:
        sys.exit("the copy of the tree is not clean:\n" + clean.stdout)
    for name, (text, _) in planted.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    result = run()
    failed = result.returncode == 0
    for name, (_, message) in planted.items():
        found = any((name in line or name.split("/")[1] in line) and message in line for line in result.stdout.splitlines()) if message else name not in result.stdout
        if not found:
            failed = True
            print(f"{name}: expected {message or 'no finding'}")
    if failed:
        print(result.stdout)
        sys.exit(1)
print(f"{len(planted)} planted, all as expected")
