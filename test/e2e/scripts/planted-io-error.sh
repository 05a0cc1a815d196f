# The load of test/e2e/restart on nbdkit: content while all is well, and not when the
# server refuses writes.
set -euo pipefail

modprobe nbd
nbdkit --unix /run/nbd.sock --filter=error \
	memory 256M error-pwrite=EIO error-pwrite-rate=100% error-pwrite-file=/run/inject
nbd-client -unix /run/nbd.sock /dev/nbd0
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt

echo "--- without an error"
./restart /dev/nbd0

echo "--- with errors"
touch /run/inject
if ./restart /dev/nbd0 2>/run/found; then
	echo "FAILED: the load did not see that writes fail"
	exit 1
fi
grep -q "fio: .*Input/output error" /run/found || { echo "FAILED: fio was not asked"; exit 1; }
grep -q "the kernel says: .*I/O error" /run/found || { echo "FAILED: the kernel's log was not read"; exit 1; }
