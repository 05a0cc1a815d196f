// Package interop holds Holdfast's protocols against the tools that others use:
// internal/nbd against nbdinfo, nbdcopy, qemu-img, qemu-io and fio as clients, and
// against nbdkit as a server; and the socket frontend, which is made for them.
//
// A tool that is missing fails its test with the name of its Debian package; `make
// deps` installs them all. Everything runs over unix sockets in a directory of the
// test, and ends with it.
package interop
