# Snapshots, clones and growth through CSI, on the kernel's NBD device and with all that
# root may do; see test/conformance.
set -e
modprobe nbd nbds_max=8
mkfs.ext4 -q /dev/ubdb
mount /dev/ubdb /var/tmp
exec ./conformance.test -test.v -binaries /host \
	-test.run '^(TestExt4Growth|TestSnapshotsKeepWhatWas|TestCloneBesideItsSource|TestExpansionInUse)$'
