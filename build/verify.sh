#!/bin/bash
# Generates again and fails if the tree changes: what is committed is what the
# sources say.
set -euo pipefail
cd "$(dirname "$0")/.."

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
cp -r proto "$before/"
build/generate.sh
if ! diff -ru "$before/proto" proto; then
	echo "verify: generated files are stale; commit what 'make generate' made" >&2
	exit 1
fi
unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "verify: not gofmt-clean: $unformatted" >&2
	exit 1
fi
echo "verify: generated code is current, everything is formatted"
