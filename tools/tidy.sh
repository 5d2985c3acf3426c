#!/usr/bin/env bash
# clang-tidy over the project's own sources. Usage: tools/tidy.sh BUILD_DIR JOBS
set -euo pipefail
git ls-files 'src/*.cc' 'apps/*.cc' | grep -v '_test\.cc$' | xargs -P "$2" -n 4 clang-tidy-14 -p "$1" --quiet --extra-arg=-Wno-unknown-warning-option --warnings-as-errors='*' 2>&1 |
  { grep -vE '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter' || true; }
[ "${PIPESTATUS[0]}" = 0 ]
