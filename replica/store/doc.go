// Package store keeps the replicas of one disk.
//
// A store is a data file, read and written past the page cache, and a metadata
// directory with a Pebble database and a journal. DESIGN.md beside this file
// tells how they work together and what each kind of crash may and may not do.
//
// # Invariants
//
//   - What Flush, Update, Fence, Create and Delete have reported done survives a
//     power loss; what Write and Zero have reported done survives the death of
//     the process.
//   - After any crash each 512-byte sector is what it was at the last flush or
//     what some later write or zero made it, never another replica's bytes.
//     Sectors never written are zeros.
//   - A region is durably in the intent log before its bytes change.
//   - An extent belongs to one place. It is reused after its release is durable
//     and every operation on it has ended.
//   - Every block read is verified against its checksum.
//   - A failed write or sync of the disk ends all writing, for ever.
//
// # Goroutines
//
// The package starts none. Requests are begun on the goroutine of Submit, go on
// in the callbacks of the Device, and block on the metadata only in jobs of the
// Executor. A store has at most one job for the journal, one for commits, one
// that grows the data file and one step of a deletion at a time, and one for each
// page of a map that is being read. One mutex guards all state; it is held for
// work in memory only.
//
// # Data file
//
// Little-endian. Checksums are CRC32C (Castagnoli). An extent is 64 KiB; extent
// n begins at byte n*65536. Extents from 128 on hold data.
//
//	offset  bytes
//	0       84     superblock
//	65536   8 KiB  flush slot 0: two blocks of 4096 bytes that take turns
//	...            1016 slots
//
// Superblock:
//
//	0   8   "HOLDFAST"
//	8   4   version: 1
//	12  16  cluster ID
//	28  16  node ID
//	44  16  disk ID
//	60  4   number of flush slots: 1016
//	64  4   first block of the flush slots: 16
//	68  4   first extent for data: 128
//	72  8   zero
//	80  4   checksum of bytes 0 to 79
//
// Block of a flush slot; the one with the higher counter counts:
//
//	0     4   0x48534c46
//	4     4   version: 1
//	8     16  replica ID
//	24    8   counter; the block is number counter%2 of the slot
//	32    16  flush number: epoch, n
//	48    4   number of confirmed flushes, at most 100
//	52    32  each: replica ID, epoch, n
//	...       zeros
//	4092  4   checksum of bytes 0 to 4091
//
// # Journal
//
// Files journal-N, N sixteen hexadecimal digits that rise from file to file.
//
//	0   8   "HFJOURNL"
//	8   4   version: 1
//	12  16  disk ID
//	28  32  incarnation: boot ID (16), disk sequence (8), superblock (8)
//	60  4   checksum of bytes 0 to 59
//
// then records. A file may end within a record, or within its header.
//
//	0   4   length of the payload
//	4   4   checksum of the payload
//	8   4   checksum of bytes 0 to 7
//	12      payload: number of the record (8), handle of the replica (4), number
//	        of the extent in the volume (4), map entry
//
// # Database
//
// Keys begin with one letter and are big-endian, values are little-endian. A
// handle is the short name of a replica in this store and never used again.
//
//	A                            identity: a superblock
//	B page(4)                    allocation: 4096 bits, one for each extent
//	I                            incarnation of the last open (32)
//	J                            number of the newest journal record in here (8)
//	N                            next handle (4)
//	R replica ID(16)             handle (4), volume ID (16), size (8), flush slot
//	                             (4), being deleted (1)
//	F handle(4)                  fence: incarnation, generation, epoch, session
//	V handle(4)                  view, see below
//	U handle(4)                  number of extents of the replica (8)
//	L handle(4) page(4)          intent log: 512 bits, one for each region
//	D handle(4) replica ID(16)   dirty set: revision of the removal (8)
//	E handle(4) replica ID(16) page(4)   its regions: 512 bits
//	M handle(4) layer(4) extent(4)       map entry; layer 0 is the head
//
// Bit r%64 of 64-bit word r/64 stands for extent or region r. Pages without a
// bit are not stored, apart from those of the allocation.
//
// Map entry. A placement says where blocks of the extent lie: block b of its
// mask at block base+b of the data file. Blocks in the mask of no placement are
// absent, unless the mask of zero blocks has them: then they are zeros even
// where an older layer has data. Version 1 knows the head only: one placement
// at most, of a whole extent that the head owns, and no zero blocks. More
// placements (blocks in the extents of older layers, or in small slots) and zero
// blocks come with snapshots and another version.
//
//	0   1   number of placements n: 0 or 1
//	1   8n  each: mask (2), flags (1, bit 0: owned by this layer), base (5)
//	..  2   mask of zero blocks: 0
//	..  4   each: checksum of a block with data, in the order of the blocks
//
// View: volume ID, generation, cluster incarnation, attachment ID, owner's node
// ID, start ID, epoch, revision, size, not waited out (1), number of replicas
// (2), and for each: replica ID, node ID, disk ID, in sync (1), revision of the
// removal, incarnation (32). IDs have 16 bytes, numbers 8.
package store
