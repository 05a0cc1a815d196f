#!/bin/bash
# Runs Go tests with the race detector and closes with a summary. Packages that play all
# they test in one goroutine go without it: there is no race to detect, and it would take
# them three times as long.
#
# usage: build/test.sh [PACKAGES [go test flags]]     (default: every package)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck disable=SC2086 # several patterns may be given
packages=$(go list ${1:-./...})
shift $(($# > 0))
alone='.*/test/(crash|explore|sim)'
mapfile -t racing < <(grep -Exv "$alone" <<<"$packages")
mapfile -t playing < <(grep -Ex "$alone" <<<"$packages")

# Built outside of the pipe: a summary that fails to build must not eat the
# events of the run.
summary=$(mktemp -d)
trap 'rm -rf "$summary"' EXIT
go build -o "$summary/testsummary" ./build/testsummary

events() {
	local outcome=0
	# cgo is on only here: the race detector needs it, the product is static.
	[ ${#racing[@]} = 0 ] || CGO_ENABLED=1 go test -json -timeout 30m -race "$@" "${racing[@]}" || outcome=1
	[ ${#playing[@]} = 0 ] || go test -json -timeout 30m "$@" "${playing[@]}" || outcome=1
	return "$outcome"
}

events "$@" | "$summary/testsummary"
