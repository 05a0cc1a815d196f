package store

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// Record is one piece of a structure. It is shown as JSON by its fields, and as a row
// of a table by Row. Error says what is wrong with a piece that cannot be read.
type Record interface {
	Row() []string
}

// structure is what an Inspector can show.
type structure struct {
	columns []string
	each    func(*Inspector, func(Record) error) error
}

// structures are all of them, in the order in which they are named to people.
func structures() (names []string, byName map[string]structure) {
	names = []string{"superblock", "replicas", "cuts", "map", "log", "dirty", "journal", "flush", "seal"}
	return names, map[string]structure{
		"superblock": {[]string{"FORMAT", "CLUSTER", "NODE", "DISK", "DATA-FILE-BYTES"}, (*Inspector).superblock},
		"replicas":   {[]string{"REPLICA", "NUMBER", "VOLUME", "SIZE-BYTES", "FLUSH-SLOT", "DELETING", "EPOCH", "REVISION", "ERROR"}, (*Inspector).replicas},
		"cuts":       {[]string{"REPLICA", "LAYER", "SNAPSHOT", "EPOCH", "SIZE-BYTES", "VALID", "STATE", "ERROR"}, (*Inspector).cuts},
		"map":        {[]string{"NUMBER", "EXTENT", "LAYER", "KEPT-FOR", "BLOCKS", "PLACES", "ERROR"}, (*Inspector).maps},
		"log":        {[]string{"REPLICA", "REGIONS", "FIRST", "ERROR"}, (*Inspector).log},
		"dirty":      {[]string{"REPLICA", "OF", "REMOVED-AT", "REGIONS", "FIRST", "ERROR"}, (*Inspector).dirty},
		"journal":    {[]string{"FILE", "BYTE", "RECORD", "NUMBER", "EXTENT", "BLOCKS", "ERROR"}, (*Inspector).journal},
		"flush":      {[]string{"SLOT", "BYTE", "REPLICA", "COUNTER", "FLUSH", "CONFIRMED", "ERROR"}, (*Inspector).flush},
		"seal":       {[]string{"FILE", "BYTE", "BYTES", "COUNTER", "ERROR"}, (*Inspector).seal},
	}
}

// Structures are the names of what an Inspector shows.
func Structures() []string {
	names, _ := structures()
	return names
}

// Inspector shows the structures of a disk that nothing else has open, as they lie
// there, damaged ones too. It changes nothing on it.
type Inspector struct {
	path     string
	device   *vfs.OSDevice
	executor *vfs.GoExecutor
	// store has nothing but the database; nil until that is asked for.
	store *Store
}

// Inspect takes the disk in the directory at path. It fails with block.ErrNotFound if
// there is no data file and block.ErrInUse if a process has the disk open.
func Inspect(path string) (*Inspector, error) {
	device, err := vfs.OpenOSDevice(filepath.Join(path, dataName), vfs.OSDeviceOptions{Workers: 1, ReadOnly: true, Buffered: true})
	if err != nil {
		return nil, fmt.Errorf("inspect disk in %s: %w", path, err)
	}
	return &Inspector{path: path, device: device, executor: vfs.NewGoExecutor(1)}, nil
}

// Columns are the titles of the rows of a structure; block.ErrInvalid if there is none
// of that name.
func (i *Inspector) Columns(name string) ([]string, error) {
	_, all := structures()
	s, ok := all[name]
	if !ok {
		return nil, fmt.Errorf("structure %q: there are %v: %w", name, Structures(), block.ErrInvalid)
	}
	return s.columns, nil
}

// Each calls f for each piece of a structure, in order.
func (i *Inspector) Each(name string, f func(Record) error) error {
	if _, err := i.Columns(name); err != nil {
		return err
	}
	_, all := structures()
	if err := all[name].each(i, f); err != nil {
		return fmt.Errorf("inspect %s of the disk in %s: %w", name, i.path, err)
	}
	return nil
}

// Close gives the disk back.
func (i *Inspector) Close() error {
	var err error
	if i.store != nil {
		i.store.guard.release()
		err = i.store.db.Close()
	}
	i.executor.Close()
	return errors.Join(err, i.device.Close())
}

// database opens the database in memory, once.
func (i *Inspector) database() (*Store, error) {
	if i.store != nil {
		return i.store, nil
	}
	s := newStore(Options{
		Dir: newShadowDir(pebblevfs.Default), Path: i.path, Device: newShadowDevice(i.device, i.executor),
		Executor: i.executor, Logger: slog.New(slog.DiscardHandler),
	})
	db, err := s.openDatabase(s.databaseOptions())
	if err != nil {
		return nil, err
	}
	s.db, i.store = db, s
	return s, nil
}

// said is the text of an error, empty for none.
func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// SuperblockRecord is the superblock.
type SuperblockRecord struct {
	Format  int             `json:"format"`
	Cluster block.ClusterID `json:"cluster"`
	Node    block.NodeID    `json:"node"`
	Disk    block.DiskID    `json:"disk"`
	// DataFileBytes is the length of the data file.
	DataFileBytes int64 `json:"dataFileBytes"`
}

// Row implements Record.
func (r SuperblockRecord) Row() []string {
	return []string{strconv.Itoa(r.Format), r.Cluster.String(), r.Node.String(), r.Disk.String(), strconv.FormatInt(r.DataFileBytes, 10)}
}

func (i *Inspector) superblock(f func(Record) error) error {
	id, version, err := readSuperblock(i.device)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(i.path, dataName), err)
	}
	return f(SuperblockRecord{Format: int(version), Cluster: id.Cluster, Node: id.Node, Disk: id.Disk, DataFileBytes: i.device.Size()})
}

// ReplicaRecord is a replica with what is kept of it under one key each.
type ReplicaRecord struct {
	Replica   block.ReplicaID `json:"replica"`
	Number    uint32          `json:"number"`
	Volume    block.VolumeID  `json:"volume"`
	SizeBytes int64           `json:"sizeBytes"`
	FlushSlot uint32          `json:"flushSlot"`
	Deleting  bool            `json:"deleting"`
	Fence     block.Fence     `json:"fence"`
	View      *block.View     `json:"view"`
	Error     string          `json:"error,omitempty"`
}

// Row implements Record.
func (r ReplicaRecord) Row() []string {
	revision := ""
	if r.View != nil {
		revision = strconv.FormatUint(uint64(r.View.Revision), 10)
	}
	return []string{
		r.Replica.String(), strconv.Itoa(int(r.Number)), r.Volume.String(), strconv.FormatInt(r.SizeBytes, 10), strconv.Itoa(int(r.FlushSlot)),
		strconv.FormatBool(r.Deleting), strconv.FormatUint(uint64(r.Fence.Epoch), 10), revision, r.Error,
	}
}

func (i *Inspector) replicas(f func(Record) error) error {
	return i.eachReplica(func(r ReplicaRecord) error { return f(r) })
}

func (i *Inspector) eachReplica(f func(ReplicaRecord) error) error {
	s, err := i.database()
	if err != nil {
		return err
	}
	return scan(s.db, []byte{keyReplica}, []byte{keyReplica + 1}, func(key, value []byte) error {
		d := decoder{rest: key[1:]}
		r := ReplicaRecord{Replica: block.ReplicaID{ID: d.id()}}
		record, err := decodeReplicaRecord(value)
		if err = errors.Join(d.end("replica key"), err); err != nil {
			r.Error = fmt.Sprintf("key %x: %v", key, err)
			return f(r)
		}
		r.Number, r.Volume, r.SizeBytes, r.FlushSlot, r.Deleting = uint32(record.handle), record.volume, record.size, record.slot, record.deleting
		fence, err := s.get(handleKey(nil, keyFence, record.handle))
		if err == nil && fence != nil {
			r.Fence, err = decodeFence(fence)
		}
		if err == nil {
			var view []byte
			if view, err = s.get(handleKey(nil, keyView, record.handle)); err == nil && view != nil {
				r.View, err = decodeView(view)
			}
		}
		r.Error = said(err)
		return f(r)
	})
}

// CutRecord is a cut of a replica.
type CutRecord struct {
	Replica   block.ReplicaID  `json:"replica"`
	Layer     uint32           `json:"layer"`
	Snapshot  block.SnapshotID `json:"snapshot"`
	Epoch     block.Epoch      `json:"epoch"`
	SizeBytes int64            `json:"sizeBytes"`
	Valid     bool             `json:"valid"`
	// Target: a resync makes it valid. Dropping: it is being removed. Kept: it is the
	// head from before a resync.
	Target   bool   `json:"target"`
	Dropping bool   `json:"dropping"`
	Kept     bool   `json:"kept"`
	Error    string `json:"error,omitempty"`
}

// Row implements Record.
func (r CutRecord) Row() []string {
	state := ""
	for _, s := range []struct {
		is   bool
		word string
	}{{r.Target, " target"}, {r.Dropping, " dropping"}, {r.Kept, " kept head"}} {
		if s.is {
			state += s.word
		}
	}
	return []string{
		r.Replica.String(), strconv.Itoa(int(r.Layer)), r.Snapshot.String(), strconv.FormatUint(uint64(r.Epoch), 10),
		strconv.FormatInt(r.SizeBytes, 10), strconv.FormatBool(r.Valid), state, r.Error,
	}
}

func (i *Inspector) cuts(f func(Record) error) error {
	return i.eachReplica(func(r ReplicaRecord) error {
		h := handle(r.Number)
		return scan(i.store.db, handleKey(nil, keyCut, h), handleKey(nil, keyCut, h+1), func(key, value []byte) error {
			d := decoder{rest: key[5:]}
			record := CutRecord{Replica: r.Replica, Layer: d.u32()}
			c, err := decodeCut(value)
			record.Error = said(errors.Join(d.end("cut key"), err))
			record.Snapshot, record.Epoch, record.SizeBytes, record.Valid = c.Snapshot, c.Epoch, c.Size, c.Valid
			record.Target, record.Dropping, record.Kept = c.target, c.dropping, c.Kept
			return f(record)
		})
	})
}

// MapRecord is one extent of a replica: of its head, or kept for cuts.
type MapRecord struct {
	// Number is the short name of the replica in the store.
	Number uint32 `json:"number"`
	Extent uint32 `json:"extent"`
	// Layer is that in which the extent changed last; a kept state stands for the cuts
	// from there to KeptFor, which is 0 for the head.
	Layer   uint32 `json:"layer"`
	KeptFor uint32 `json:"keptFor,omitempty"`
	// Blocks are those with data.
	Blocks []MapBlock `json:"blocks"`
	Error  string     `json:"error,omitempty"`
}

// MapBlock is where a block lies.
type MapBlock struct {
	Block int `json:"block"`
	// Byte is its place in the data file.
	Byte     int64  `json:"byte"`
	Checksum uint32 `json:"checksum"`
	// Owned: the head alone names the place. Foreign: it belongs to what the replica is
	// a clone of.
	Owned   bool `json:"owned,omitempty"`
	Foreign bool `json:"foreign,omitempty"`
}

func mapBlocks(e *entryState) []MapBlock {
	owned, foreign := e.flagged(placementOwned), e.flagged(placementForeign)
	blocks := []MapBlock{}
	for b := range block.BlocksPerExtent {
		if bit := uint16(1) << b; e.data&bit != 0 {
			blocks = append(blocks, MapBlock{Block: b, Byte: e.at(b) * block.BlockSize, Checksum: e.sums[b], Owned: owned&bit != 0, Foreign: foreign&bit != 0})
		}
	}
	return blocks
}

// places shows blocks that lie together as one.
func places(blocks []MapBlock) (text string) {
	for i := 0; i < len(blocks); {
		end := i + 1
		for end < len(blocks) && blocks[end].Block == blocks[end-1].Block+1 && blocks[end].Byte == blocks[end-1].Byte+block.BlockSize {
			end++
		}
		text += fmt.Sprintf(" %d-%d@%d", blocks[i].Block, blocks[end-1].Block, blocks[i].Byte)
		i = end
	}
	return text
}

// Row implements Record.
func (r MapRecord) Row() []string {
	keptFor := ""
	if r.KeptFor != headLayer {
		keptFor = strconv.Itoa(int(r.KeptFor))
	}
	return []string{
		strconv.Itoa(int(r.Number)), strconv.Itoa(int(r.Extent)), strconv.Itoa(int(r.Layer)), keptFor, strconv.Itoa(len(r.Blocks)), places(r.Blocks), r.Error,
	}
}

func (i *Inspector) maps(f func(Record) error) error {
	s, err := i.database()
	if err != nil {
		return err
	}
	return scanEntries(s.db, func(key []byte, h handle, extent, keptFor uint32, e *entryState, err error) error {
		r := MapRecord{Number: uint32(h), Extent: extent, KeptFor: keptFor}
		if err != nil {
			r.Error = fmt.Sprintf("key %x: %v", key, err)
		} else {
			r.Layer, r.Blocks = e.layer, mapBlocks(e)
		}
		return f(r)
	})
}

// RegionsRecord is an intent log, or the dirty set that is kept for another replica.
type RegionsRecord struct {
	Replica block.ReplicaID `json:"replica"`
	// Of is the absent replica, RemovedAt the revision of its removal; nothing for a log.
	Of        *block.ReplicaID `json:"of,omitempty"`
	RemovedAt block.Revision   `json:"removedAt,omitempty"`
	Regions   []block.Region   `json:"regions"`
	Error     string           `json:"error,omitempty"`
}

// Row implements Record.
func (r RegionsRecord) Row() []string {
	const shown = 12
	first := ""
	for _, g := range r.Regions[:min(shown, len(r.Regions))] {
		first += fmt.Sprintf(" %d", g)
	}
	row := []string{r.Replica.String()}
	if r.Of != nil {
		row = append(row, r.Of.String(), strconv.FormatUint(uint64(r.RemovedAt), 10))
	}
	return append(row, strconv.Itoa(len(r.Regions)), first, r.Error)
}

func regionList(s block.Regions) []block.Region {
	list := []block.Region{}
	for g := range s.All() {
		list = append(list, g)
	}
	return list
}

func (i *Inspector) log(f func(Record) error) error {
	return i.eachReplica(func(r ReplicaRecord) error {
		h := handle(r.Number)
		regions, err := i.store.loadRegions(logPageKey(nil, h, 0), logPageKey(nil, h, ^uint32(0)))
		return f(RegionsRecord{Replica: r.Replica, Regions: regionList(regions), Error: said(err)})
	})
}

func (i *Inspector) dirty(f func(Record) error) error {
	return i.eachReplica(func(r ReplicaRecord) error {
		sets, err := i.store.loadDirty(handle(r.Number))
		if err != nil {
			return f(RegionsRecord{Replica: r.Replica, Of: &block.ReplicaID{}, Error: said(err)})
		}
		for _, set := range sets {
			if err := f(RegionsRecord{Replica: r.Replica, Of: &set.Replica, RemovedAt: set.Removal, Regions: regionList(set.Regions)}); err != nil {
				return err
			}
		}
		return nil
	})
}
