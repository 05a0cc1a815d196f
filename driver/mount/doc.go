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
// # An XFS is called after its volume
//
// The kernel mounts no two XFS of one UUID, and a snapshot or a clone has that of its
// source. So the UUID of an XFS is the ID of its volume: mkfs gives it to a new one,
// and any other is renamed by xfs_admin before it is mounted. That asks nobody where
// the bytes came from, and can be done again after it was interrupted anywhere:
//
//   - xfs_admin refuses a file system with a dirty log, as every snapshot of a mounted
//     one is, and exits with 0 all the same; so the UUID is read back. Mounting it
//     with "nouuid" and unmounting it writes the log back, and it is tried again.
//   - Interrupted between log and superblock, the two have different UUIDs, and the
//     kernel mounts that no more; xfs_admin, tried first, makes it whole.
//
// Read-only, nothing is changed: a UUID that may be another's is mounted "nouuid".
//
// # Growing
//
// A file system that is smaller than its device is grown while it is mounted. The
// tools look at both sizes themselves, so growing again does nothing.
//
// # Deadlines
//
// mkfs, fsck and blkid end with the context. A mount or unmount system call that
// waits for frozen I/O cannot be interrupted by anybody; it is left to end, while
// the caller keeps the volume marked as busy.
package mount
