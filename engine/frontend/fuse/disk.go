package fuse

import (
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Node IDs of the file system: FUSE fixes that of the root.
const (
	rootNode uint64 = fuse.FUSE_ROOT_ID
	diskNode uint64 = 2
)

// maxBackground bounds the requests that the kernel has under way in the file
// system, and so the helper's memory: each has at most one buffer of 1 MiB.
const maxBackground = 128

// neverChanges is how long the kernel may believe what it was told: when the size
// changes, it is told to forget it.
const neverChanges = 365 * 24 * time.Hour

// disk is a file system with one file. Its methods run in parallel, on the
// goroutines of the FUSE server.
type disk struct {
	fuse.RawFileSystem
	client *nbd.Resilient
	config *Config
	// size of the file in bytes; it only grows.
	size atomic.Int64
}

func newDisk(client *nbd.Resilient, config *Config) *disk {
	d := &disk{RawFileSystem: fuse.NewDefaultRawFileSystem(), client: client, config: config}
	d.size.Store(config.Size)
	return d
}

// grow makes the file larger.
func (d *disk) grow(size int64) {
	d.client.Grow(size)
	d.size.Store(max(size, d.size.Load()))
}

// mountOptions ask for large, parallel and uncached requests.
func mountOptions(a block.AttachmentID) *fuse.MountOptions {
	return &fuse.MountOptions{
		DirectMountStrict: true,
		FsName:            loopName(a),
		Name:              "holdfast",
		MaxWrite:          block.MaxTransfer,
		MaxBackground:     maxBackground,
		DisableXAttrs:     true,
		// Without it the kernel waits for each direct request in turn.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO,
	}
}

// String implements fuse.RawFileSystem.
func (d *disk) String() string { return "holdfast" }

func (d *disk) attributes(node uint64, out *fuse.Attr) fuse.Status {
	switch node {
	case rootNode:
		*out = fuse.Attr{Ino: rootNode, Mode: syscall.S_IFDIR | 0o500, Nlink: 2}
	case diskNode:
		size := uint64(d.size.Load())
		*out = fuse.Attr{
			Ino: diskNode, Mode: syscall.S_IFREG | 0o600, Nlink: 1,
			Size: size, Blocks: size / block.SectorSize, Blksize: block.BlockSize,
		}
	default:
		return fuse.ENOENT
	}
	return fuse.OK
}

// Lookup implements fuse.RawFileSystem.
func (d *disk) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if header.NodeId != rootNode || name != diskName {
		return fuse.ENOENT
	}
	out.NodeId = diskNode
	out.SetEntryTimeout(neverChanges)
	out.SetAttrTimeout(neverChanges)
	return d.attributes(diskNode, &out.Attr)
}

// GetAttr implements fuse.RawFileSystem.
func (d *disk) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(neverChanges)
	return d.attributes(in.NodeId, &out.Attr)
}

// StatFs implements fuse.RawFileSystem. The block size is the granularity of
// discards on the loop device.
func (d *disk) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{
		Blocks: uint64(d.size.Load()) / block.BlockSize, Files: 1,
		Bsize: block.BlockSize, Frsize: block.BlockSize, NameLen: 255,
	}
	return fuse.OK
}

// Open implements fuse.RawFileSystem.
func (d *disk) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != diskNode {
		return fuse.EPERM
	}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (d *disk) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	size := uint64(d.size.Load())
	if in.Offset >= size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(uint64(len(buf)), uint64(in.Size), size-in.Offset)]
	if _, err := d.client.ReadAt(buf, int64(in.Offset)); err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf), fuse.OK
}

// Write implements fuse.RawFileSystem.
func (d *disk) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	size := uint64(d.size.Load())
	if in.Offset > size || uint64(len(data)) > size-in.Offset {
		return 0, fuse.Status(syscall.ENOSPC)
	}
	n, err := d.client.WriteAt(data, int64(in.Offset))
	return uint32(n), status(err)
}

// Fsync implements fuse.RawFileSystem.
func (d *disk) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return status(d.client.Flush())
}

// Fallocate implements fuse.RawFileSystem: the loop device turns discards into
// punched holes, and writes of zeros into zeroed ranges.
func (d *disk) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	span := block.Span{Offset: int64(in.Offset), Length: int64(in.Length)}
	if !span.Within(d.size.Load(), int64(d.config.BlockSize)) {
		return fuse.EINVAL
	}
	switch in.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case unix.FALLOC_FL_PUNCH_HOLE:
		return status(d.client.Trim(span))
	case unix.FALLOC_FL_ZERO_RANGE:
		return status(d.client.WriteZeroes(span))
	default:
		return fuse.Status(syscall.EOPNOTSUPP)
	}
}

// status is this edge's table from Holdfast's errors to the kernel's.
func status(err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, block.ErrNoSpace):
		return fuse.Status(syscall.ENOSPC)
	case errors.Is(err, block.ErrInvalid):
		return fuse.EINVAL
	default:
		return fuse.EIO
	}
}
