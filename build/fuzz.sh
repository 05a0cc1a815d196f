#!/bin/bash
# Runs every fuzz test of the tree, one after the other, for a time each, and fails with
# the first that finds something. What it has found is kept by go in the testdata of the
# package, as a case that every later run of the tests tries.
#
# usage: build/fuzz.sh TIME [PACKAGE]     (default: every package)
set -euo pipefail
cd "$(dirname "$0")/.."

time=$1
count=0
while IFS=: read -r file name; do
	package=./$(dirname "${file#./}")
	[ -z "${2:-}" ] || [ "$package" = "${2%/...}" ] || [[ $2 == */... && $package == "${2%/...}"/* ]] || continue
	echo "fuzz: $package $name"
	go test "$package" -run '^$' -fuzz "^$name\$" -fuzztime "$time"
	count=$((count + 1))
done < <(grep -rE --include='*_test.go' '^func Fuzz[A-Za-z0-9]*\(' . | sed -E 's/:func (Fuzz[A-Za-z0-9]*)\(.*/:\1/' | sort)
[ "$count" -gt 0 ] || { echo "fuzz: no fuzz tests in ${2:-the tree}"; exit 1; }
echo "fuzz: $count fuzz tests, $time each"
