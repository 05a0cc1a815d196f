package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Versions of commands, results and states. Each is written with the lowest one
// that can say it, so that daemons a version apart work together as long as nobody
// asks for what only one of them knows.
const (
	version1 = 1
	// version2 adds snapshots, growth, reverts, volumes with a source, borrowed volumes,
	// scrubs, settings, replacements, disks that are cordoned, drained or removed, the
	// trash, and limits of the space of snapshots.
	version2 = 2
	// newest is the highest that this build reads.
	newest = version2
)

// Command is one of the types below.
type Command interface {
	// Kind is the name of the command in its encoded form.
	Kind() string
}

// Bootstrap begins a cluster. Repeated, it changes nothing; a second cluster is
// refused with block.ErrForeign.
type Bootstrap struct {
	Cluster     block.ClusterID
	Incarnation block.ClusterIncarnation
}

// SetNode adds a node, or changes name, addresses and tags of the one that is
// there.
type SetNode struct {
	Node Node
}

// AddDisk adds a disk. One that its node already has is taken back as it is, with
// its path and capacity brought up to date. One known on another node is refused
// with block.ErrExists, unless From names that node: then the disk and the
// replicas on it move, which is for a machine that came back under a new node ID.
type AddDisk struct {
	Disk Disk
	From block.NodeID `json:",omitzero"`
}

// Placement is where one replica goes.
type Placement struct {
	Replica block.ReplicaID
	Node    block.NodeID
	Disk    block.DiskID
	// Absent: the replica of a volume with a source shares nothing with it. It
	// begins outside the in-sync set with everything dirty.
	Absent bool `json:",omitempty"`
}

// CreateVolume makes a volume whose replicas are then made by their nodes. If the
// name is held by a volume of the same size, parameters and source, the result is
// that volume; with others it is block.ErrExists.
//
// A source must be a snapshot that is ready, else the answer is block.ErrNotFound or
// block.ErrUnavailable. Replicas that are not absent go to disks that hold in-sync
// replicas of its volume; if one of them is in sync no longer the answer is
// block.ErrConflict: decide again.
type CreateVolume struct {
	Volume     block.VolumeID
	Name       string
	Size       int64
	Parameters Parameters
	Replicas   []Placement
	// DecidedAt is the index of the state that the IDs and the placement were
	// decided on. If a volume record was dropped since, the answer is
	// block.ErrConflict: decide again.
	DecidedAt uint64
	Source    *Source `json:",omitempty"`
}

// ReplicaReady reports that a replica was made. With the last one the volume is
// ready and all its replicas but absent ones are in sync. One that is to take the place
// of another begins outside the in-sync set. One that is not wanted any more is
// block.ErrNotFound.
type ReplicaReady struct {
	Replica     block.ReplicaID
	Incarnation block.Incarnation
}

// DeleteVolume makes a volume a tombstone and takes its snapshots along or, while the
// settings keep a trash, puts it there with all it has. Refused with block.ErrInUse
// while it is published or attached or a volume is being made from one of its
// snapshots, and with block.ErrUnavailable while it is borrowed by one who does not
// yield, unless that is for a revert.
type DeleteVolume struct {
	Volume block.VolumeID
	// At is now, in milliseconds since 1970 (UTC); 0 will do without a trash.
	At int64 `json:",omitempty"`
	// OnlyWithoutSnapshots: with a snapshot, taken or not, it is block.ErrInUse.
	OnlyWithoutSnapshots bool `json:",omitempty"`
	// Purge: it goes past the trash, or out of it.
	Purge bool `json:",omitempty"`
}

// CreateSnapshot reserves a name for a snapshot that an engine then takes and
// proposes. If the name is held by a snapshot of the same volume, the result is that
// snapshot; by one of another volume it is block.ErrExists. Past the volume's limit
// it is block.ErrNoCapacity.
type CreateSnapshot struct {
	Snapshot block.SnapshotID
	Name     string
	Volume   block.VolumeID
	// Created is in milliseconds since 1970 (UTC).
	Created int64
	// DecidedAt is the index of the state that the ID was decided on. If a snapshot
	// of the volume was dropped since, the answer is block.ErrConflict: decide again.
	DecidedAt uint64
}

// DeleteSnapshot forgets a snapshot, whether it was taken or not; one that does not
// exist is gone already. Refused with block.ErrInUse while a volume is being made
// from it or reverted to it, and while it keeps what a volume was before a revert that is
// under way.
type DeleteSnapshot struct {
	Snapshot block.SnapshotID
	// Untaken takes back a reservation: a snapshot that was taken is left as it is.
	Untaken bool `json:",omitempty"`
}

// GrowVolume is the intent to make a volume larger, which an engine then does and
// proposes. Once begun it is only ever finished: a later one may ask for more, while
// one for less than that asks for nothing. Below the size of the volume it is
// block.ErrInvalid.
type GrowVolume struct {
	Volume block.VolumeID
	Size   int64
}

// ReplicaGone reports that a tombstone was deleted: a replica of a deleted volume, or
// one that was replaced. The last one of a deleted volume takes the record along.
type ReplicaGone struct {
	Replica block.ReplicaID
}

// Publish allows a node to stage the volume. Refused with block.ErrInUse while
// another node has it, with block.ErrUnavailable while it is being made or reverted, or
// borrowed by one who does not yield.
type Publish struct {
	Volume block.VolumeID
	Node   block.NodeID
}

// Unpublish takes Publish back; a volume not published to the node is left as it
// is. A live attachment is ended in the same commit if EndAttachment is set, else
// the answer is block.ErrInUse.
type Unpublish struct {
	Volume        block.VolumeID
	Node          block.NodeID
	EndAttachment bool `json:",omitempty"`
}

// StartEngine gives an engine start its epoch (rule 2). Repeated with the same
// Start it answers with the view it made.
//
// A volume not published to Node, or an Attachment that is not the current one,
// is refused with block.ErrDetached; a fresh attachment while one is alive, or
// while another node has the volume, with block.ErrInUse; another epoch than
// Epoch with block.ErrConflict and the current view.
//
// Borrow begins an attachment without a device, of an engine without a frontend that
// does something to a volume published to nobody and ends. It never continues one.
// While it lives, the volume cannot be published.
type StartEngine struct {
	Volume block.VolumeID
	Node   block.NodeID
	Start  block.StartID
	// Epoch is that of the view the caller saw; the new one is one higher.
	Epoch block.Epoch
	// Attachment continues that attachment. If it is zero, NewAttachment begins.
	Attachment    block.AttachmentID `json:",omitzero"`
	NewAttachment block.AttachmentID `json:",omitzero"`
	Borrow        bool               `json:",omitempty"`
	// Yield: a publication or deletion of the volume does not wait for the end of what is
	// borrowed but ends it. No client has anything of it, and the next epoch fences it.
	Yield bool `json:",omitempty"`
}

// Propose changes a view by compare-and-set on (epoch, revision). The result has
// a verdict and the view. Conflict is also the answer once the attachment of that
// epoch has ended (nobody may propose then), and for a proposal that names replicas
// wrongly, would leave no member, has a snapshot that is not reserved, or a size that
// nobody asked for, with block.ErrInvalid.
type Propose struct {
	Proposal block.Proposal
}

// EndAttachment ends an attachment; the engine that served it may serve no
// longer. Ending one that is not the current one changes nothing.
type EndAttachment struct {
	Volume     block.VolumeID
	Attachment block.AttachmentID
}

// Kind implements Command.
func (Bootstrap) Kind() string { return "bootstrap" }

// Kind implements Command.
func (SetNode) Kind() string { return "set-node" }

// Kind implements Command.
func (AddDisk) Kind() string { return "add-disk" }

// Kind implements Command.
func (CreateVolume) Kind() string { return "create-volume" }

// Kind implements Command.
func (ReplicaReady) Kind() string { return "replica-ready" }

// Kind implements Command.
func (DeleteVolume) Kind() string { return "delete-volume" }

// Kind implements Command.
func (ReplicaGone) Kind() string { return "replica-gone" }

// Kind implements Command.
func (Publish) Kind() string { return "publish" }

// Kind implements Command.
func (Unpublish) Kind() string { return "unpublish" }

// Kind implements Command.
func (StartEngine) Kind() string { return "start-engine" }

// Kind implements Command.
func (Propose) Kind() string { return "propose" }

// Kind implements Command.
func (EndAttachment) Kind() string { return "end-attachment" }

// Kind implements Command.
func (CreateSnapshot) Kind() string { return "create-snapshot" }

// Kind implements Command.
func (DeleteSnapshot) Kind() string { return "delete-snapshot" }

// Kind implements Command.
func (GrowVolume) Kind() string { return "grow-volume" }

// versionOf is the lowest version that can say c.
func versionOf(c Command) int {
	switch c := c.(type) {
	case CreateSnapshot, DeleteSnapshot, GrowVolume, RevertVolume, EndRevert, SetVolume, RestoreVolume, PurgeVolume, SetSettings, RequestScrub, RecordScrub,
		CordonDisk, RemoveDisk, DrainDisk, ReplaceReplica, AbandonReplacement:
		return version2
	case CreateVolume:
		if c.Source != nil || c.Parameters.SnapshotsMax != 0 || c.Parameters.SnapshotSpace != (SpaceLimit{}) || slices.ContainsFunc(c.Replicas, func(p Placement) bool { return p.Absent }) {
			return version2
		}
	case DeleteVolume:
		if c.At != 0 || c.OnlyWithoutSnapshots || c.Purge {
			return version2
		}
	case StartEngine:
		if c.Borrow {
			return version2
		}
	case Propose:
		if c.Proposal.Snapshot != nil || c.Proposal.Size != 0 {
			return version2
		}
	}
	return version1
}

type envelope struct {
	Version int             `json:"version"`
	Kind    string          `json:"kind"`
	Command json.RawMessage `json:"command"`
}

// Encode is the form in which a command goes into the log.
func Encode(c Command) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.Kind(), err)
	}
	data, err := json.Marshal(envelope{Version: versionOf(c), Kind: c.Kind(), Command: body})
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.Kind(), err)
	}
	return data, nil
}

// Decode reads what Encode wrote. A version or kind that this build does not know
// is block.ErrVersion, anything else that is wrong block.ErrInvalid.
func Decode(data []byte) (Command, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("decode command: %w: %w", err, block.ErrInvalid)
	}
	if err := checkVersion(e.Version); err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	switch e.Kind {
	case Bootstrap{}.Kind():
		return decodeBody[Bootstrap](e)
	case SetNode{}.Kind():
		return decodeBody[SetNode](e)
	case AddDisk{}.Kind():
		return decodeBody[AddDisk](e)
	case CordonDisk{}.Kind():
		return decodeBody[CordonDisk](e)
	case RemoveDisk{}.Kind():
		return decodeBody[RemoveDisk](e)
	case SetSettings{}.Kind():
		return decodeBody[SetSettings](e)
	case DrainDisk{}.Kind():
		return decodeBody[DrainDisk](e)
	default:
		return decodeVolume(e)
	}
}

// decodeVolume is Decode for what is about one volume.
func decodeVolume(e envelope) (Command, error) {
	switch e.Kind {
	case CreateVolume{}.Kind():
		return decodeBody[CreateVolume](e)
	case ReplicaReady{}.Kind():
		return decodeBody[ReplicaReady](e)
	case DeleteVolume{}.Kind():
		return decodeBody[DeleteVolume](e)
	case ReplicaGone{}.Kind():
		return decodeBody[ReplicaGone](e)
	case Publish{}.Kind():
		return decodeBody[Publish](e)
	case Unpublish{}.Kind():
		return decodeBody[Unpublish](e)
	case StartEngine{}.Kind():
		return decodeBody[StartEngine](e)
	case Propose{}.Kind():
		return decodeBody[Propose](e)
	case EndAttachment{}.Kind():
		return decodeBody[EndAttachment](e)
	case CreateSnapshot{}.Kind():
		return decodeBody[CreateSnapshot](e)
	case DeleteSnapshot{}.Kind():
		return decodeBody[DeleteSnapshot](e)
	case GrowVolume{}.Kind():
		return decodeBody[GrowVolume](e)
	case RevertVolume{}.Kind():
		return decodeBody[RevertVolume](e)
	case EndRevert{}.Kind():
		return decodeBody[EndRevert](e)
	case SetVolume{}.Kind():
		return decodeBody[SetVolume](e)
	case RestoreVolume{}.Kind():
		return decodeBody[RestoreVolume](e)
	case PurgeVolume{}.Kind():
		return decodeBody[PurgeVolume](e)
	case RequestScrub{}.Kind():
		return decodeBody[RequestScrub](e)
	case RecordScrub{}.Kind():
		return decodeBody[RecordScrub](e)
	case ReplaceReplica{}.Kind():
		return decodeBody[ReplaceReplica](e)
	case AbandonReplacement{}.Kind():
		return decodeBody[AbandonReplacement](e)
	default:
		return nil, fmt.Errorf("decode command: kind %q is unknown to this build: %w", e.Kind, block.ErrVersion)
	}
}

func checkVersion(v int) error {
	if v < version1 || v > newest {
		return fmt.Errorf("version %d, this build knows %d to %d: %w", v, version1, newest, block.ErrVersion)
	}
	return nil
}

func decodeBody[C Command](e envelope) (Command, error) {
	var c C
	if err := strict(e.Command, &c); err != nil {
		return nil, fmt.Errorf("decode command %s: %w: %w", e.Kind, err, block.ErrInvalid)
	}
	return c, nil
}

// strict decodes one JSON value and refuses unknown fields and trailing bytes.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("bytes after the end at offset %d", d.InputOffset())
	}
	return nil
}
