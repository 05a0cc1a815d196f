// Package fuse shows a volume on kernels without an NBD client. A helper process
// serves a FUSE file system with one file, "disk", as long as the volume; a loop
// device on that file is the block device. Behind the file the helper has a
// reconnecting NBD client on a unix socket of the daemon, so that the daemon may
// die and come back while I/O waits.
//
//	pod -> file system -> /dev/loopN -> disk (FUSE) -> helper -> unix socket -> daemon -> backend
//
// # Directory of a device
//
// Everything a device has lies in <run directory>/<attachment ID>/, which
// belongs to root alone:
//
//	config.json  what the helper is to do; written by the daemon
//	state.json   who the helper is (pid, start time, boot); written by the helper
//	             when the file system is mounted
//	s            the daemon's socket
//	mnt          where the file system is mounted
//	log          the helper's messages
//
// # Life
//
// Attach writes config.json, listens, starts the helper in a session of its own,
// waits until it says that the file system is mounted, and puts a loop device
// with the name of the attachment on the file. Adopt finds that loop device by
// its name, verifies by pid, start time and boot ID that the helper of state.json
// lives, and listens.
// Detach takes the loop device down while the helper still serves it, unmounts,
// and waits for the helper, which ends with its file system. A helper that is
// told to end (SIGTERM), or whose daemon says that the export is gone, fails all
// I/O and takes everything down itself.
//
// # Goroutines
//
// A Device has one that accepts connections, and one for the connection being
// served; a new connection is served only after the old one was quiesced (rule
// 29). Close and Detach join both. Main owns the NBD client, the file system's
// server and their goroutines.
package fuse
