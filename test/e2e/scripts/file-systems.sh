# The tests of driver/mount on real file systems, with all that root may do.
set -e
modprobe loop
exec /host/mount.test -test.v
