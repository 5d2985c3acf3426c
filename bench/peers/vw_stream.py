"""VW over a file of its text format, in one pass: `vw_stream.py FILE OPTIONS...` prints one JSON line.

Part of make bench-online, which makes the environment (PyPI vowpalwabbit in out/peers).
"""
import json
import resource
import sys
import time

import vowpalwabbit
from vowpalwabbit import pyvw

begin = time.perf_counter()
vw = pyvw.Workspace(" ".join(["-d", sys.argv[1], "--no_stdin", "--quiet", *sys.argv[2:]]))
seconds = time.perf_counter() - begin
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "version": vowpalwabbit.__version__,
    "loss": vw.get_sum_loss() / vw.get_weighted_examples(),
    "examples": vw.get_weighted_examples(),
    "seconds": seconds,  # two threads: one parses, one learns
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
}))
vw.finish()
