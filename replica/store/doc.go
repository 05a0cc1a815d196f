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
//   - An extent of the data file, or a block of one that is split, belongs to one
//     extent of one replica. It is reused after its release is durable and every
//     operation on it has ended.
//   - A cut reads for ever as the head did when it was taken. A valid one does so
//     after any crash, with every checksum right. What a cut needs is never
//     overwritten; what nothing needs any more is freed to the block, and nothing
//     is copied for either.
//   - Every block read is verified against its checksum.
//   - A failed write or sync of the disk ends all writing, for ever.
//
// # Goroutines
//
// The package starts none. Requests are begun on the goroutine of Submit, go on
// in the callbacks of the Device, and block on the metadata only in jobs of the
// Executor. A store has at most one job for the journal, one for commits, one
// that grows the data file, one step of a deletion and one of the dropping of a cut
// at a time, up to eight that read pages of maps, a few pages each, and one for each
// request on a cut that is being looked up. One mutex guards all state; it is held for work in memory only.
//
// # Data file
//
// Little-endian. Checksums are CRC32C (Castagnoli). An extent is 64 KiB; extent
// n begins at byte n*65536, and block n, of 4 KiB, at byte n*4096. Extents from 128
// on hold data: each is taken as a whole, or split, and then its blocks are taken
// one by one.
//
//	offset  bytes
//	0       84     superblock
//	65536   8 KiB  flush slot 0: two blocks of 4096 bytes that take turns
//	...            1016 slots
//
// Superblock:
//
//	0   8   "HOLDFAST"
//	8   4   version: 2; 1 is read, and made 2
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
//	4     4   version of the record: 1
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
//	8   4   version: 2; 1 is read
//	12  16  disk ID
//	28  32  incarnation: boot ID (16), disk sequence (8), superblock (8)
//	60  4   checksum of bytes 0 to 59
//
// then records. A file may end within a record, or within its header. File journal-spare
// is empty, and becomes the next of them.
//
//	0   4   length of the payload
//	4   4   checksum of the payload
//	8   4   checksum of bytes 0 to 7
//	12      payload: number of the record (8), handle of the replica (4), number
//	        of the extent in the volume (4), number of states (2), and for each:
//	        layer (4; 0 is the head), map entry or a zero byte for none
//
// A record has the head of an extent as it is then, and every state kept by cuts
// that the database may lack. In version 1 a map entry takes the place of all that
// follows the extent.
//
// # Seal
//
// File seal: what a store that was closed in order was like. It is removed before
// anything changes.
//
//	0   8   "HFSEALED"
//	8   4   version: 2
//	12  4   number of flush records, and for each: slot (4), counter (8)
//	..  4   number of files in meta, and for each: length of the name (2), name,
//	        length (8), checksum of each 4096 bytes, of which the last may be fewer (4)
//	..  4   checksum of all before
//
// The flush records are the newest of each replica that has one. The files are all in
// meta, in order, but for tables, which the manifest has, and spare logs. A store may have
// been opened since by a build that knows no seals: there is then a file, or a journal,
// that the seal does not name, and it does not count. A build must not open a store with
// a seal of a version that it does not know.
//
// # Database
//
// Directory meta: a database of pebble. Empty files log-spare-N become its next logs.
//
// Keys begin with one letter and are big-endian, values are little-endian. A
// handle is the short name of a replica in this store and never used again.
//
//	A                            identity: a superblock
//	B page(4)                    allocation: 4096 bits, one for each extent that is
//	                             taken as a whole or in part
//	C handle(4) layer(4) extent(4)       index of changes, empty: the extent changed
//	                             while the head had the number layer, or a number up
//	                             to it and above the layer of the cut before
//	D handle(4) replica ID(16)   dirty set: revision of the removal (8)
//	E handle(4) replica ID(16) page(4)   its regions: 512 bits
//	F handle(4)                  fence: incarnation, generation, epoch, session
//	G extent(4)                  a split extent: its blocks that are taken, 16 bits
//	H handle(4)                  line: number of the head (4), handle (4) and layer
//	                             (4) of the cut of another replica that shows through;
//	                             without one 1, 0, 0
//	I                            incarnation of the last open (32)
//	J                            number of the newest journal record in here (8)
//	L handle(4) page(4)          intent log: 512 bits, one for each region
//	M handle(4) 0(4) extent(4)   map entry of the head
//	N                            next handle (4)
//	P handle(4) extent(4) layer(4)       map entry kept by cuts
//	R replica ID(16)             handle (4), volume ID (16), size (8), flush slot
//	                             (4), being deleted (1)
//	S handle(4) layer(4)         cut: snapshot ID (16), epoch (8), size (8), flags (1;
//	                             bit 0: valid, 1: becomes valid by an Update alone, 2:
//	                             being dropped, 3: the kept head of rule 22)
//	U handle(4)                  number of blocks that the replica takes (8); of
//	                             extents in version 1
//	V handle(4)                  view, see below
//
// Bit r%64 of 64-bit word r/64 stands for extent or region r. Pages without a
// bit are not stored, apart from those of the allocation.
//
// Layers. A replica is a line of layers: cuts, and on top the head. The head has a
// number, first 1; a cut takes it over as its layer, and the head has the next one.
// Map entry P of key layer k, whose own layer is e, is the state of the extent at
// the cuts of layers e to k. The head's entry is also that of all cuts from its own
// layer on. A cut that none of these stands for has of the extent what shows through
// from the line's origin, or nothing.
//
// Map entry: the complete state of an extent. A placement says where blocks of it
// lie: block b of its mask at block base+b of the data file. Blocks in the mask of
// no placement are zeros.
//
//	0   1   128 + number of placements n, at most 16
//	1   4   layer: the number of the head when the extent last changed
//	5   8n  each: mask (2), flags (1), base (5)
//	..  4   each: checksum of a block with data, in the order of the blocks
//
// Flags of a placement. Bit 0: the head owns it, no entry P names it; once a cut is
// taken, that counts again when the entry has changed. Bit 1: it belongs to the
// origin, and is neither overwritten nor freed by this line. Bit 2: its blocks are
// some of a split extent; else it has an extent for itself. Bits 0 and 1 are never
// both set.
//
// In version 1 an entry is the number of placements (1; 0 or 1), those, which are
// whole extents and owned, a zero (2) and the checksums; its layer is 1.
//
// View: volume ID, generation, cluster incarnation, attachment ID, owner's node
// ID, start ID, epoch, revision, size, not waited out (1), number of replicas
// (2), and for each: replica ID, node ID, disk ID, in sync (1), revision of the
// removal, incarnation (32). If there are snapshots: their number (4), and for each:
// ID, size, time of creation. IDs have 16 bytes, numbers 8.
package store
