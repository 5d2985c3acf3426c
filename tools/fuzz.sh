#!/usr/bin/env bash
# Runs every libFuzzer target of a build for some seconds each. Findings and corpora stay under out/fuzz.
# Usage: tools/fuzz.sh BUILD_DIR SECONDS SEEDS_BUILD_DIR (the ordinary build, whose targets write their seeds). Exit code 1 when a target found something.
set -uo pipefail
build="$1"
seconds="$2"
seeds="$3"
failed=0
for target in "$build"/fuzz_*; do
  [ -x "$target" ] || continue
  name="$(basename "$target")"
  mkdir -p "out/fuzz/$name"
  "$seeds/$name" write "out/fuzz/$name" || exit 1
  echo "== $name, $seconds s"
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=8192 -print_final_stats=1 \
    -artifact_prefix="out/fuzz/$name-" "out/fuzz/$name" >"out/fuzz/$name.log" 2>&1
  code=$?
  grep -E 'stat::(number_of_executed|peak_rss)|ERROR|SUMMARY|Test unit written' "out/fuzz/$name.log"
  if [ $code -ne 0 ]; then
    echo "$name failed (exit code $code); see out/fuzz/$name.log"
    failed=1
  fi
done
exit $failed
