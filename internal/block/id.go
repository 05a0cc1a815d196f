package block

import (
	"encoding/hex"
	"fmt"
	"io"
)

// ID is 16 random bytes. An ID is never reused for anything else, even after
// what it named is gone (rule 1).
type ID [16]byte

// NewID reads a fresh ID from random, which must be a cryptographic source in
// production and may be seeded in a simulation.
func NewID(random io.Reader) (ID, error) {
	var id ID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return ID{}, fmt.Errorf("draw ID: %w", err)
	}
	return id, nil
}

// ParseID reads the 32 lower-case hexadecimal digits that String prints.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("ID %q: want %d hexadecimal digits: %w", s, 2*len(id), ErrInvalid)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("ID %q: %w", s, ErrInvalid)
	}
	return id, nil
}

// String prints the ID as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short prints the first 8 digits, for logs and tables.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether the ID was never drawn.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Empty text is the zero ID.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ID{}
		return nil
	}
	v, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = v
	return nil
}

// The kinds of ID are distinct types, so that the compiler refuses one in the
// place of another.
type (
	// ClusterID names a cluster, from its bootstrap on.
	ClusterID struct{ ID }
	// NodeID names one installation of a node. A node that lost its Raft state
	// comes back under a new one.
	NodeID struct{ ID }
	// DiskID names one store on one disk.
	DiskID struct{ ID }
	// VolumeID names a volume.
	VolumeID struct{ ID }
	// ReplicaID names one copy of a volume on one disk.
	ReplicaID struct{ ID }
	// SnapshotID names a snapshot of a volume, the same on each of its replicas.
	SnapshotID struct{ ID }
	// AttachmentID names one staged device, from stage to unstage (rule 2).
	AttachmentID struct{ ID }
	// StartID is drawn at each start of an engine, so that two starts never
	// share an epoch (rule 2).
	StartID struct{ ID }
)
