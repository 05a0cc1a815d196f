# The kernel's NBD client against nbdkit: connect, mkfs, mount, load with
# verification, an error that the server injects, disconnect.
set -euo pipefail

step() { echo "--- $*"; }
fail() { echo "FAILED: $*"; exit 1; }

# await WHAT COMMAND...: polls until the command succeeds, at most 10 s.
await() {
	local what=$1 tries
	shift
	for ((tries = 0; tries < 100; tries++)); do
		"$@" && return 0
		sleep 0.1
	done
	fail "waited 10 s for $what"
}

step "the kernel has an NBD client"
modprobe nbd nbds_max=2
uname -r

step "nbdkit serves 256 MiB of memory, with errors on demand"
nbdkit --unix /run/nbd.sock --pidfile /run/nbdkit.pid --filter=error \
	memory 256M error-pwrite=EIO error-pwrite-rate=100% error-pwrite-file=/run/inject
await "nbdkit" test -s /run/nbdkit.pid
nbd-client -unix /run/nbd.sock /dev/nbd0
[ "$(blockdev --getsize64 /dev/nbd0)" = $((256 << 20)) ] || fail "wrong size"

step "ext4 on it"
mkfs.ext4 -q -E lazy_itable_init=0,nodiscard /dev/nbd0
mount /dev/nbd0 /mnt

step "fio writes and verifies"
fio --name=load --directory=/mnt --size=32M --rw=randwrite --bs=4k --ioengine=libaio --direct=1 \
	--iodepth=16 --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed=1 --output-format=terse >/run/fio.txt
sha256sum /mnt/load.0.0 >/run/sum

step "what was written is there after a remount"
umount /mnt
fsck.ext4 -fn /dev/nbd0 >/dev/null
mount /dev/nbd0 /mnt
sha256sum --check --quiet /run/sum
umount /mnt

step "an error of the server reaches the client"
touch /run/inject
if dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct 2>/dev/null; then
	fail "a write that the server refused was reported as done"
fi
rm /run/inject
dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct 2>/dev/null || fail "no write after the error"

step "disconnect"
nbd-client -d /dev/nbd0
disconnected() { [ "$(blockdev --getsize64 /dev/nbd0)" = 0 ]; }
await "the device to let go" disconnected
kill "$(cat /run/nbdkit.pid)"
