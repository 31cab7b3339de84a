#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_EACH seconds (60 unless told), from the seeds in fuzz/corpus. An input that fails
# is kept in fuzz/artifacts; what else is found is let go.
#   fuzz.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-fuzz >/dev/null || { echo "fuzz.sh: needs cargo-fuzz (cargo install cargo-fuzz) and a nightly toolchain" >&2; exit 1; }
each=${SECONDS_EACH:-60}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for target in "${targets[@]}"; do
	echo "== $target, $each s"
	mkdir -p "$found/$target"
	cargo +nightly fuzz run "$target" "$found/$target" "fuzz/corpus/$target" -- -max_total_time="$each" -rss_limit_mb=2048 -print_final_stats=1
done
