#!/bin/bash
# Runs golangci-lint in the version that tools/golangci-lint pins. Go builds it
# once (about two minutes) and caches it. go vet is one of its linters.
#
# usage: build/lint.sh [golangci-lint run arguments]     (default: every package)
set -euo pipefail
cd "$(dirname "$0")/.."

golangci_lint=$(go -C tools/golangci-lint tool -n golangci-lint)
export GOLANGCI_LINT_CACHE=${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/golangci-lint
exec "$golangci_lint" run "$@"
