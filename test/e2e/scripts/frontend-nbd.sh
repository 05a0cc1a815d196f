# The kernel NBD frontend in front of the kernel it is for.
set -euo pipefail
modprobe nbd nbds_max=4
uname -r
/host/frontend-nbd.test -test.v -test.timeout 240s
