# A store on a real file system, with the power cut at every flush and between, and on
# a disk that loses writes or fails them (test/e2e/powercut).
set -euo pipefail
# Nobody makes the device nodes but dmsetup.
export DM_DISABLE_UDEV=1
for module in dm-log-writes dm-snapshot dm-flakey xfs; do
	modprobe "$module"
done
/host/powercut replay "$(cat /host/filesystem)" /dev/ubdb /dev/ubdc /dev/ubdd /dev/ubde
