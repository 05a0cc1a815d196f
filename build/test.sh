#!/bin/bash
# Runs Go tests with the race detector and closes with a summary.
#
# usage: build/test.sh [go test arguments]     (default: every package)
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- ./...

# Built outside of the pipe: a summary that fails to build must not eat the
# events of the run.
summary=$(mktemp -d)
trap 'rm -rf "$summary"' EXIT
go build -o "$summary/testsummary" ./build/testsummary

# cgo is on only here: the race detector needs it, the product is static.
CGO_ENABLED=1 go test -json -race -timeout 30m "$@" | "$summary/testsummary"
