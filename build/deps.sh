#!/bin/bash
# Installs what the tests, the demo and the tools need from Debian, and only
# what is missing. Says what it installs and why.
#
# usage: build/deps.sh GROUP...     (groups: test demo bench postgres e2e generate)
set -euo pipefail

# group|package|why
catalogue() {
	cat <<'LIST'
test demo bench|gcc|the race detector links with cgo
test demo bench|libc6-dev|the race detector links with cgo
test demo bench|qemu-utils|qemu-img, qemu-io and qemu-nbd judge our NBD exports
test demo bench|libnbd-bin|nbdinfo and nbdcopy judge our NBD exports
test demo bench|nbdkit|the reference NBD server that our client is tested, and our server measured, against
bench|linux-perf|perf, which samples where the time goes
test demo bench|fio|puts load on devices and compares them
test demo|sqlite3|the database of the durability checks
test demo postgres|e2fsprogs|mkfs.ext4 and resize2fs, which the CSI node service runs
test demo postgres|xfsprogs|mkfs.xfs and its like, which the CSI node service runs
test demo bench postgres|util-linux|losetup, mount, nsenter, fallocate
test demo postgres|mount|mount and umount
test demo|iproute2|network namespaces for tests that cut links
test demo|nftables|cuts links inside those namespaces
test demo bench postgres|fuse3|the device of hosts whose kernel has no NBD client
test postgres|postgresql-15|PostgreSQL with pgbench, amcheck and pg_checksums; no service of it is set up
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

[ $# -gt 0 ] || { echo "usage: build/deps.sh GROUP... (test demo bench postgres e2e generate)" >&2; exit 2; }

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

# A database server that is installed for a test must not start one of its own, now
# or at boot: its package is told so while it is installed, and only then.
no_cluster=
case " ${missing[*]} " in *" postgresql-"*)
	no_cluster=/etc/postgresql-common/createcluster.d/holdfast-deps.conf
	mkdir -p "${no_cluster%/*}"
	echo 'create_main_cluster = false' >"$no_cluster"
	;;
esac

log=$(mktemp)
trap 'rm -f "$log" $no_cluster; [ -z "$no_cluster" ] || rmdir --ignore-fail-on-non-empty "${no_cluster%/*}"' EXIT
export DEBIAN_FRONTEND=noninteractive
begin=$SECONDS
apt=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -n 25 "$log" >&2
	echo "deps: apt-get failed" >&2
	exit 1
fi
echo "deps: ${#missing[@]} packages installed in $((SECONDS - begin)) s"
