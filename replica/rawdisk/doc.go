// Package rawdisk makes whole block devices into disks: it refuses a device that
// somebody uses or that holds data, puts XFS on it, finds it again by the UUID of
// that file system, whatever the kernel calls it after a reboot, and mounts it.
//
// # What is refused
//
// In use, whatever the caller says: a device that is mounted or swapped on, one that
// device mapper, MD or another driver holds, one of whose partitions is in use, and
// whatever else the kernel does not give exclusively (O_EXCL). With data, unless the
// caller forces it: partitions, any signature that wipefs of util-linux knows (file
// systems, LVM, RAID, LUKS, partition tables), and bytes in the first MiB that nothing
// recognises.
//
// A file system that this package made is told by its label, and never formatted again
// on its own: what is on it is for the caller to look at.
//
// # The file system
//
// The data file of a store is allocated in large steps, never shared and never
// shrunk, and everything in it is done past the page cache. So reflink and the reverse
// map, whose trees would grow with each step, are off; the stripe is the device's
// optimal I/O size where that makes sense; the device is discarded as a whole, for an
// SSD that was used before. It is mounted with noatime: reads would otherwise write
// the inode, on the very path where reading has to be cheap. It is mounted without
// discard: nothing is ever given back but by punching holes, where the caller decides.
//
// Metadata of XFS that cannot be written is tried again for ever by default, which
// looks like a disk that hangs. Here XFS gives up after some seconds, so that the disk
// fails, with an error.
//
// The package starts goroutines in Find alone: one for each block device of the
// machine, which ends when its read does. One that hangs is not waited for.
package rawdisk
