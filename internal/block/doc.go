// Package block is Holdfast's vocabulary: the identifiers, ranges, views,
// messages and sentinel errors that every other package speaks. It imports the
// standard library only and holds no behaviour beyond arithmetic on its types.
//
// Units. Offsets and lengths are bytes in int64. A sector (512 bytes) is the
// smallest unit a client may address, a block (4 KiB) the unit of checksums and
// of ordering, an extent (64 KiB) the unit of allocation, a chunk (1 MiB) the
// unit of resync and repair work, a region (16 MiB) the unit of intent logs and
// dirty sets.
//
// Messages. Request and Reply are what an engine and a replica say to each
// other. The local replica receives them by function call, the others through
// internal/wire, the simulator through its virtual network.
package block
