package state

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s:\ngot  %s\nwant %s", path, got, want)
	}
}

// examples is one command of each kind with every field of version 1 set.
func examples() []Command {
	return []Command{
		Bootstrap{Cluster: block.ClusterID{ID: id('c', 1)}, Incarnation: 1},
		SetNode{Node: Node{ID: nodeID(1), Name: "node-1", ControlAddress: "10.0.0.1:1", DataAddress: "10.0.0.1:2", RaftAddress: "10.0.0.1:3", Tags: []string{"rack-1"}}},
		AddDisk{Disk: Disk{ID: diskID(1), Node: nodeID(1), Path: "/disk", Class: "nvme", Tags: []string{"fast"}, Capacity: 1 << 40}, From: nodeID(2)},
		CreateVolume{Volume: volumeID(1), Name: "volume", Size: 1 << 30,
			Parameters: Parameters{Replicas: 1, MinInSync: 1, DiskClass: "nvme", DiskTags: []string{"fast"}, NodeTags: []string{"rack-1"}},
			Replicas:   []Placement{{Replica: replicaID(1), Node: nodeID(1), Disk: diskID(1)}}, DecidedAt: 3},
		ReplicaReady{Replica: replicaID(1), Incarnation: incarnation(4)},
		DeleteVolume{Volume: volumeID(1)},
		ReplicaGone{Replica: replicaID(1)},
		Publish{Volume: volumeID(1), Node: nodeID(1)},
		Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true},
		StartEngine{Volume: volumeID(1), Node: nodeID(1), Start: startID(1), Epoch: 5, Attachment: attachmentID(1), NewAttachment: attachmentID(2)},
		Propose{Proposal: block.Proposal{Volume: volumeID(1), Epoch: 6, Revision: 7, Remove: []block.ReplicaID{replicaID(1)}, Admit: []block.ReplicaID{replicaID(2)},
			Incarnations: []block.MemberIncarnation{{Replica: replicaID(2), Incarnation: incarnation(8)}}, WaitedOut: true, EndAttachment: true}},
		EndAttachment{Volume: volumeID(1), Attachment: attachmentID(1)},
	}
}

// examples2 is what version 2 added.
func examples2() []Command {
	return []Command{
		CreateVolume{Volume: volumeID(1), Name: "volume", Size: 1 << 30, Parameters: Parameters{Replicas: 2, MinInSync: 1},
			Replicas:  []Placement{{Replica: replicaID(1), Node: nodeID(1), Disk: diskID(1)}, {Replica: replicaID(2), Node: nodeID(2), Disk: diskID(2), Absent: true}},
			DecidedAt: 3, Source: &Source{Snapshot: snapshotID(1), Volume: volumeID(2), Clone: true}},
		CreateVolume{Volume: volumeID(1), Name: "volume", Size: 1 << 30, Parameters: Parameters{Replicas: 1, MinInSync: 1, SnapshotsMax: 10000},
			Replicas: []Placement{{Replica: replicaID(1), Node: nodeID(1), Disk: diskID(1)}}, DecidedAt: 3},
		StartEngine{Volume: volumeID(1), Node: nodeID(1), Start: startID(1), Epoch: 5, NewAttachment: attachmentID(2), Borrow: true},
		Propose{Proposal: block.Proposal{Volume: volumeID(1), Epoch: 6, Revision: 7, Snapshot: &block.Snapshot{ID: snapshotID(1), Size: 1 << 30, Created: 1700000000000}}},
		Propose{Proposal: block.Proposal{Volume: volumeID(1), Epoch: 6, Revision: 7, Size: 1 << 31}},
		CreateSnapshot{Snapshot: snapshotID(1), Name: "monday", Volume: volumeID(1), Created: 1700000000000, DecidedAt: 4},
		DeleteSnapshot{Snapshot: snapshotID(1)},
		DeleteSnapshot{Snapshot: snapshotID(1), Untaken: true},
		GrowVolume{Volume: volumeID(1), Size: 1 << 31},
		SetSettings{ScrubInterval: number(86400), ScrubRate: number(1 << 20)},
		RequestScrub{Volume: volumeID(1), At: 1700000000000},
		RecordScrub{Volume: volumeID(1), Epoch: 6, At: 1700000000001, Began: 1700000000000, Offset: 1 << 20, Covered: []block.ReplicaID{replicaID(1)}, Ended: true,
			Found: Found{Repaired: 4096, Lost: 8192, Differing: 65536}, Findings: []Finding{finding(1)}},
	}
}

func TestCommandFormat(t *testing.T) {
	checkCommands(t, "commands_v1.jsonl", examples())
	checkCommands(t, "commands_v2.jsonl", examples2())
}

func checkCommands(t *testing.T, file string, examples []Command) {
	t.Helper()
	var all bytes.Buffer
	for _, c := range examples {
		data, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(append(data, '\n'))
		back, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back, c) {
			t.Fatalf("decoded %+v, want %+v", back, c)
		}
	}
	golden(t, file, all.Bytes())
}

func TestDecodeRefuses(t *testing.T) {
	for data, want := range map[string]error{
		"":                                 block.ErrInvalid,
		"{}":                               block.ErrVersion,
		`{"version":3,"kind":"bootstrap"}`: block.ErrVersion,
		`{"version":0,"kind":"bootstrap"}`: block.ErrVersion,
		`{"version":1,"kind":"make-tea"}`:  block.ErrVersion,
		`{"version":1,"kind":"bootstrap"}`: block.ErrInvalid,
		`{"version":1,"kind":"publish","command":{"Volume":"zz"}}`:    block.ErrInvalid,
		`{"version":1,"kind":"publish","command":{"Unheard":"of"}}`:   block.ErrInvalid,
		`{"version":1,"kind":"publish","command":{}} {"version":1}`:   block.ErrInvalid,
		`{"version":1,"kind":"delete-volume","command":{"Volume":3}}`: block.ErrInvalid,
	} {
		if c, err := Decode([]byte(data)); !errors.Is(err, want) {
			t.Errorf("decode %s: %v, %v, want %v", data, c, err, want)
		}
	}
}

func exampleState(t *testing.T) *State {
	m := newMachine(t)
	m.ready(1)
	view := m.start()
	m.must(Propose{Proposal: block.Proposal{Volume: view.Volume, Epoch: view.Epoch, Revision: view.Revision, Remove: []block.ReplicaID{replicaID(12)}}})
	m.must(m.creation(2))
	m.ready(3)
	m.must(DeleteVolume{Volume: volumeID(3)})
	m.must(ReplicaGone{Replica: replicaID(31)})
	return m.State
}

// exampleState2 has everything that version 2 added.
func exampleState2(t *testing.T) *State {
	m := newMachine(t)
	m.ready(1)
	m.ready(2)
	view := m.start()
	m.take(1, 1)
	m.take(1, 2)
	m.must(DeleteSnapshot{Snapshot: snapshotID(2)})
	m.must(CreateSnapshot{Snapshot: snapshotID(3), Name: "snapshot-3", Volume: volumeID(1), Created: 3, DecidedAt: m.Index()})
	v, _ := m.Volume(volumeID(1))
	m.must(Propose{Proposal: block.Proposal{Volume: v.ID, Epoch: view.Epoch, Revision: v.View.Revision, Remove: []block.ReplicaID{replicaID(12)}}})
	m.must(GrowVolume{Volume: volumeID(1), Size: 1 << 31})
	m.must(StartEngine{Volume: volumeID(2), Node: nodeID(2), Start: startID(2), NewAttachment: attachmentID(2), Borrow: true})
	c := m.creation(3)
	c.Source, c.Replicas[1].Absent = &Source{Snapshot: snapshotID(1), Volume: volumeID(1)}, true
	c.Parameters.SnapshotsMax = 7
	m.must(c)
	m.must(RecordScrub{Volume: v.ID, Epoch: view.Epoch, At: 9, Began: 8, Offset: 1 << 30, Covered: everyReplica(v), Ended: true, Findings: []Finding{finding(1)}})
	m.must(RecordScrub{Volume: v.ID, Epoch: view.Epoch, At: 12, Began: 11, Offset: 1 << 20, Covered: everyReplica(v), Found: Found{Repaired: 1, Lost: 2, Differing: 3}})
	m.must(RequestScrub{Volume: volumeID(2), At: 13})
	m.must(SetSettings{ScrubInterval: number(7), ScrubRate: number(8)})
	return m.State
}

func TestStateFormat(t *testing.T) {
	checkState(t, "snapshot_v1.json", exampleState(t))
	checkState(t, "snapshot_v2.json", exampleState2(t))
}

func checkState(t *testing.T, file string, s *State) {
	t.Helper()
	data, err := s.Save()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, file, data)
	restored, err := Restore(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := restored.Save(); err != nil || !bytes.Equal(again, data) || !sameVolumes(restored, s) {
		t.Fatalf("restored %s, %v, want %s", again, err, data)
	}
}

func TestRestoreRefuses(t *testing.T) {
	good, err := exampleState2(t).Save()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data string
		want error
	}{
		"empty":      {"", block.ErrCorrupt},
		"truncated":  {string(good[:len(good)/2]), block.ErrCorrupt},
		"version":    {strings.Replace(string(good), `"version":2`, `"version":3`, 1), block.ErrVersion},
		"unknown":    {strings.Replace(string(good), `"index"`, `"outdex"`, 1), block.ErrCorrupt},
		"lost disks": {strings.Replace(string(good), `"disks":[`, `"disks":[],"volumes":[`, 1), block.ErrCorrupt},
		"no records": {strings.Replace(string(good), `"snapshots":[`, `"snapshots":[],"volumes":[`, 1), block.ErrCorrupt},
		"twice":      {strings.Replace(string(good), snapshotID(3).String(), snapshotID(1).String(), 1), block.ErrCorrupt},
		"all out":    {strings.ReplaceAll(string(good), `"InSync":true`, `"InSync":false`), block.ErrCorrupt},
	} {
		if _, err := Restore([]byte(c.data)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestResultFormat(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	v, _ := m.Volume(volumeID(1))
	n, _ := m.Node(nodeID(1))
	d, _ := m.Disk(diskID(1))
	full := Result{Verdict: block.Conflict, Volume: &v, Node: &n, Disk: &d}
	data, err := EncodeResult(full)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "result_v1.json", data)
	if back, err := DecodeResult(data); err != nil || !reflect.DeepEqual(back, full) {
		t.Fatalf("decoded %+v, %v", back, err)
	}
	v.GrowTo = 1 << 31
	r := Snapshot{ID: snapshotID(1), Name: "snapshot", Volume: v.ID, Created: 5, Size: 1 << 30}
	full = Result{Volume: &v, Snapshot: &r}
	if data, err = EncodeResult(full); err != nil {
		t.Fatal(err)
	}
	golden(t, "result_v2.json", data)
	if back, err := DecodeResult(data); err != nil || !reflect.DeepEqual(back, full) {
		t.Fatalf("decoded %+v, %v", back, err)
	}
	for _, sentinel := range block.Sentinels() {
		data, err := EncodeResult(Result{Err: fmt.Errorf("do thing: %w", sentinel)})
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeResult(data)
		if err != nil || !errors.Is(back.Err, sentinel) || back.Err.Error() != "do thing: "+sentinel.Error() {
			t.Errorf("%v came back as %v, %v", sentinel, back.Err, err)
		}
		for _, other := range block.Sentinels() {
			if !errors.Is(other, sentinel) && errors.Is(back.Err, other) {
				t.Errorf("%v came back as %v too", sentinel, other)
			}
		}
	}
	if _, err := EncodeResult(Result{Err: errors.New("not a sentinel")}); err == nil {
		t.Error("an error without a sentinel was encoded")
	}
	for data, want := range map[string]error{
		"x":                                block.ErrProtocol,
		`{"version":3}`:                    block.ErrVersion,
		`{"version":1,"code":"tea"}`:       block.ErrVersion,
		`{"version":1,"verdict":9}`:        block.ErrProtocol,
		`{"version":1,"surprise":"field"}`: block.ErrProtocol,
	} {
		if _, err := DecodeResult([]byte(data)); !errors.Is(err, want) {
			t.Errorf("decode result %s: %v, want %v", data, err, want)
		}
	}
}

// FuzzDecode applies whatever decodes to a state with volumes in it.
func FuzzDecode(f *testing.F) {
	for _, c := range slices.Concat(examples(), examples2(), replaceExamples()) {
		data, err := Encode(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	m := newMachine(&testing.T{})
	m.ready(1)
	m.ready(2)
	m.start()
	m.take(1, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data)
		if err != nil {
			if !errors.Is(err, block.ErrInvalid) && !errors.Is(err, block.ErrVersion) {
				t.Fatalf("error without a sentinel: %v", err)
			}
			return
		}
		next, r := m.Apply(m.Index()+1, c)
		if err := next.Check(); err != nil {
			t.Fatal(err)
		}
		if _, err := EncodeResult(r); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzRestore checks that what is restored can be saved and restored again.
func FuzzRestore(f *testing.F) {
	for _, file := range []string{"snapshot_v1.json", "snapshot_v2.json", "snapshot_replacing.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Restore(data)
		if err != nil {
			if !errors.Is(err, block.ErrCorrupt) && !errors.Is(err, block.ErrVersion) {
				t.Fatalf("error without a sentinel: %v", err)
			}
			return
		}
		saved, err := s.Save()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(saved); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDecodeResult checks that a damaged answer is an error, never a panic.
func FuzzDecodeResult(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "result_v1.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeResult(data)
		if err != nil {
			return
		}
		if _, err := EncodeResult(r); err != nil {
			t.Fatal(err)
		}
	})
}
