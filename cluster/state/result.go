package state

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Result is the answer to a command.
type Result struct {
	// Err is nil, or wraps the sentinel that says why the command was refused. A
	// refused command changed nothing.
	Err error
	// Verdict belongs to Propose: Committed or Conflict, and Unknown if the volume
	// does not exist.
	Verdict block.Verdict
	// Volume is the volume after the command, or as it was found; nil if the
	// command names none that exists. Its view is a copy.
	Volume *Volume
	// Disk belongs to the commands of disks, Node to SetNode, Snapshot to CreateSnapshot.
	Disk     *Disk
	Node     *Node
	Snapshot *Snapshot
}

// View is that of the volume of the result, zero if there is none.
func (r *Result) View() block.View {
	if r.Volume == nil {
		return block.View{}
	}
	return r.Volume.View
}

func volumeResult(v Volume) Result {
	v = v.clone()
	return Result{Volume: &v}
}

// refusal is an error that came from another member: the text it had there, and
// the sentinel it wraps.
type refusal struct {
	message  string
	sentinel error
}

func (r *refusal) Error() string { return r.message }
func (r *refusal) Unwrap() error { return r.sentinel }

// codes are the names of the sentinels in encoded results.
func codes() []codedError {
	return []codedError{
		{"invalid", block.ErrInvalid},
		{"not-found", block.ErrNotFound},
		{"exists", block.ErrExists},
		{"in-use", block.ErrInUse},
		{"stale-epoch", block.ErrStaleEpoch},
		{"stale-session", block.ErrStaleSession},
		{"conflict", block.ErrConflict},
		{"unknown", block.ErrUnknown},
		{"no-space", block.ErrNoSpace},
		{"no-capacity", block.ErrNoCapacity},
		{"checksum", block.ErrChecksum},
		{"disk-failed", block.ErrDiskFailed},
		{"corrupt", block.ErrCorrupt},
		{"version", block.ErrVersion},
		{"foreign", block.ErrForeign},
		{"protocol", block.ErrProtocol},
		{"unavailable", block.ErrUnavailable},
		{"not-leader", block.ErrNotLeader},
		{"detached", block.ErrDetached},
		{"io", block.ErrIO},
		{"closed", block.ErrClosed},
	}
}

type codedError struct {
	code     string
	sentinel error
}

// codeOf is the code of the first sentinel that err wraps, empty for none.
func codeOf(err error) string {
	for _, c := range codes() {
		if errors.Is(err, c.sentinel) {
			return c.code
		}
	}
	return ""
}

// sentinelOf is the sentinel of a code, nil if it is not known.
func sentinelOf(code string) error {
	for _, c := range codes() {
		if c.code == code {
			return c.sentinel
		}
	}
	return nil
}

type encodedResult struct {
	Version  int           `json:"version"`
	Code     string        `json:"code,omitempty"`
	Message  string        `json:"message,omitempty"`
	Verdict  block.Verdict `json:"verdict,omitempty"`
	Volume   *Volume       `json:"volume,omitempty"`
	Disk     *Disk         `json:"disk,omitempty"`
	Node     *Node         `json:"node,omitempty"`
	Snapshot *Snapshot     `json:"snapshot,omitempty"`
}

// EncodeResult is the form in which the leader answers a follower.
func EncodeResult(r Result) ([]byte, error) {
	e := encodedResult{Version: version1, Verdict: r.Verdict, Volume: r.Volume, Disk: r.Disk, Node: r.Node, Snapshot: r.Snapshot}
	if r.Snapshot != nil || r.Disk != nil && r.Disk.Cordoned || r.Volume != nil && r.Volume.version() > version1 {
		e.Version = version2
	}
	if r.Err != nil {
		e.Code, e.Message = codeOf(r.Err), r.Err.Error()
		if e.Code == "" {
			return nil, fmt.Errorf("encode result: no code for the error: %w", r.Err)
		}
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode result: %w", err)
	}
	return data, nil
}

// DecodeResult reads what EncodeResult wrote. Its error is block.ErrVersion or
// block.ErrProtocol; the answer itself is Result.Err.
func DecodeResult(data []byte) (Result, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Result{}, fmt.Errorf("decode result: %w: %w", err, block.ErrProtocol)
	}
	if err := checkVersion(head.Version); err != nil {
		return Result{}, fmt.Errorf("decode result: %w", err)
	}
	var e encodedResult
	if err := strict(data, &e); err != nil {
		return Result{}, fmt.Errorf("decode result: %w: %w", err, block.ErrProtocol)
	}
	if e.Verdict > block.Conflict {
		return Result{}, fmt.Errorf("decode result: verdict %d: %w", e.Verdict, block.ErrProtocol)
	}
	r := Result{Verdict: e.Verdict, Volume: e.Volume, Disk: e.Disk, Node: e.Node, Snapshot: e.Snapshot}
	if e.Code != "" {
		sentinel := sentinelOf(e.Code)
		if sentinel == nil {
			return Result{}, fmt.Errorf("decode result: code %q is unknown to this build: %w", e.Code, block.ErrVersion)
		}
		r.Err = &refusal{message: e.Message, sentinel: sentinel}
	}
	return r, nil
}
