#!/bin/bash
# Generates the Go code of proto/ beside the .proto files. protoc comes from
# Debian, the two plugins from the tools module, built by Go and cached by it.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t protos < <(cd proto && find . -name '*.proto' -printf '%P\n' | sort)
[ ${#protos[@]} -gt 0 ] || { echo "generate: no .proto files"; exit 0; }

# A message that was deleted must not live on in a file nobody generates.
find proto -name '*.pb.go' -delete

protoc --proto_path=proto \
	--plugin=protoc-gen-go="$(go -C tools tool -n protoc-gen-go)" \
	--plugin=protoc-gen-go-grpc="$(go -C tools tool -n protoc-gen-go-grpc)" \
	--go_out=proto --go_opt=paths=source_relative \
	--go-grpc_out=proto --go-grpc_opt=paths=source_relative \
	"${protos[@]}"

# The .proto files import each other from the root of proto/. The header of the
# output names the compiler's version, which says nothing about the result and
# differs between distributions.
find proto -name '*.pb.go' -exec sed -i -E '/^\/\/ (- )?[[:space:]]*protoc[[:space:]]+v/d' {} +
find proto -name '*.pb.go' -exec gofmt -w {} +
echo "generate: ${#protos[@]} .proto files done"
