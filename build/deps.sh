#!/bin/bash
# Installs what the tests, the demo and the tools need from Debian, and only
# what is missing. Says what it installs and why.
#
# usage: build/deps.sh GROUP...     (groups: test demo bench e2e generate)
set -euo pipefail

# group|package|why
catalogue() {
	cat <<'LIST'
test demo bench|gcc|the race detector links with cgo
test demo bench|libc6-dev|the race detector links with cgo
test demo bench|qemu-utils|qemu-img, qemu-io and qemu-nbd judge our NBD exports
test demo bench|libnbd-bin|nbdinfo and nbdcopy judge our NBD exports
test demo bench|nbdkit|the reference NBD server our client is tested against
test demo bench|fio|puts load on devices and compares them
test demo|sqlite3|the database of the durability checks
test demo|e2fsprogs|mkfs.ext4, which the CSI node service runs
test demo|xfsprogs|mkfs.xfs, which the CSI node service runs
test demo bench|util-linux|losetup, mount, nsenter, fallocate
test demo|mount|mount and umount
test demo|iproute2|network namespaces for tests that cut links
test demo|nftables|cuts links inside those namespaces
test demo bench|fuse3|the device of hosts whose kernel has no NBD client
e2e|patchelf|runs the guest kernel with its own C library
e2e|xz-utils|unpacks the guest's packages
e2e|e2fsprogs|makes the guest's disk image
e2e|kmod|lists the guest kernel's modules
generate|protobuf-compiler|protoc, for the code generated from proto/
generate|libprotobuf-dev|the well-known types proto/ imports
LIST
}

wanted() { # the catalogue's lines for the groups asked for, each package once
	catalogue | awk -F'|' -v asked=" $* " '
		{ n = split($1, groups, " ")
		  for (i = 1; i <= n; i++) if (index(asked, " " groups[i] " ") && !seen[$2]++) print $2 "|" $3 }'
}

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

[ $# -gt 0 ] || { echo "usage: build/deps.sh GROUP... (test demo bench e2e generate)" >&2; exit 2; }

if ! command -v dpkg-query >/dev/null; then
	echo "deps: this is not a Debian system; please see to it that these are here:"
	wanted "$@" | awk -F'|' '{ printf "deps:   %-18s %s\n", $1, $2 }'
	exit 0
fi

missing=()
while IFS='|' read -r package why; do
	installed "$package" && continue
	[ ${#missing[@]} -gt 0 ] || echo "deps: installing from Debian:"
	printf 'deps:   %-18s %s\n' "$package" "$why"
	missing+=("$package")
done < <(wanted "$@")

[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: not root; run this first: apt-get install ${missing[*]}" >&2
	exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
begin=$SECONDS
apt=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -n 25 "$log" >&2
	echo "deps: apt-get failed" >&2
	exit 1
fi
echo "deps: ${#missing[@]} packages installed in $((SECONDS - begin)) s"
