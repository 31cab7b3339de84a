#!/usr/bin/env bash
# Sends a private daemon requests that are made from the API's published definition, and looks whether it bears them.
#   fuzz-api.sh DIRECTORY-OF-BINARIES [SECONDS]
# SECONDS is 900 unless told. PONTON_SEED repeats a run as far as chance allows.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "$1")
scripts/install-deps.sh fuzz-api
export PONTON_FUZZ_SECONDS=${2:-900} PONTON_SEED=${PONTON_SEED:-$RANDOM} PONTON_BIN_DIR=$bin
exec cargo test --locked -p ponton-testkit --test fuzz_api -- --ignored --nocapture
