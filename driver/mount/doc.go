// Package mount puts a volume's block device under a path: it formats an empty
// device, checks and mounts a file system, binds, unmounts, and tells what is
// mounted where. The work is that of k8s.io/mount-utils; this package adds what
// a plugin without state needs to do it safely.
//
// # Device nodes carry the attachment
//
// The kernel reuses device numbers: what is mounted from /dev/nbd0 may belong to
// an attachment that ended, while /dev/nbd0 shows a newer one by now. So a volume
// is never mounted from the path that the daemon names, but from a node of the
// same device number made for that attachment,
//
//	/dev/holdfast/<volume ID>-<attachment ID>
//
// and the kernel's own mount table, which shows that name for as long as the
// mount lives, says which attachment a mount belongs to. No file has to be kept,
// and nothing can disagree with it. The nodes live in /dev because other file
// systems are mounted nodev; a reboot removes them with everything else.
//
// # An empty device is one that reads as zeros
//
// A device without a recognised signature is formatted only if its beginning can
// be read and holds nothing but zeros: neither an unreadable device nor raw data
// is ever taken for a new volume.
//
// # Deadlines
//
// mkfs, fsck and blkid end with the context. A mount or unmount system call that
// waits for frozen I/O cannot be interrupted by anybody; it is left to end, while
// the caller keeps the volume marked as busy.
package mount
