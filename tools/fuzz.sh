#!/usr/bin/env bash
# Runs every libFuzzer target of a build for some seconds each. Findings and corpora stay under out/fuzz.
# Usage: tools/fuzz.sh BUILD_DIR SECONDS
set -euo pipefail
build="$1"
seconds="$2"
failed=0
for target in "$build"/fuzz_*; do
  [ -x "$target" ] || continue
  name="$(basename "$target")"
  mkdir -p "out/fuzz/$name"
  echo "== $name, $seconds s"
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=8192 -print_final_stats=1 -artifact_prefix="out/fuzz/$name-" \
    "out/fuzz/$name" 2>&1 | grep -E 'stat::(number_of_executed|peak_rss)|ERROR|SUMMARY|Test unit written' || true
  [ "${PIPESTATUS[0]}" = 0 ] || failed=1
done
ls out/fuzz/*-crash-* out/fuzz/*-oom-* out/fuzz/*-timeout-* 2>/dev/null && failed=1
exit $failed
