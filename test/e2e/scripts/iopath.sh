# The marks of the I/O path, where the kernel permits them all.
set -eu
export HOLDFAST_IOPATH_MUST=flusher,first,oom,lock
/host/iopath.test -test.v
