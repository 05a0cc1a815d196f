package store

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// upgrade makes the database of version 1 one of this version, in one commit.
// Entries of the maps are of either version; counts were of extents. The superblock
// of the data file follows when all is open, so that a crash in between leaves a
// store that is opened in the same way.
func (s *Store) upgrade() error {
	b := s.db.NewBatch()
	defer b.Close()
	err := scan(s.db, []byte{keyUsed}, []byte{keyUsed + 1}, func(key, value []byte) error {
		d := decoder{rest: value}
		extents := d.u64()
		if err := d.end("extent count"); err != nil {
			return err
		}
		return b.Set(key, binary.LittleEndian.AppendUint64(nil, extents*block.BlocksPerExtent), nil)
	})
	if err == nil {
		err = b.Set([]byte{keyIdentity}, encodeSuperblock(s.identity), nil)
	}
	if err != nil {
		return fmt.Errorf("upgrade %s: %w", s.metaPath(), err)
	}
	return s.commitBatch(b)
}
