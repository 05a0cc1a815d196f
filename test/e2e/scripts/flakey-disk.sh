# Two stores, one of them on a disk that loses writes for a while, then on one that
# fails them (test/e2e/powercut).
set -euo pipefail
# Nobody makes the device nodes but dmsetup.
export DM_DISABLE_UDEV=1
modprobe dm-flakey
/host/powercut flakey /dev/ubdb /dev/ubdc
