package state

import (
	"reflect"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func number(n int64) *int64 { return &n }

func finding(n int64) Finding {
	return Finding{Kind: DamageRepaired, At: n, Replica: replicaID(11), Disk: diskID(1), Offset: n << 20, Bytes: 4096}
}

func everyReplica(v Volume) (list []block.ReplicaID) {
	for _, m := range v.View.Replicas {
		list = append(list, m.ID)
	}
	return list
}

// A walk is asked for, goes on at its offset, ends, and says what it covered. The view
// does not change.
func TestScrubLife(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	view := m.start()
	v := m.volume(1)
	m.must(RequestScrub{Volume: v.ID, At: 100})
	m.must(RequestScrub{Volume: v.ID, At: 200})
	if got := m.Scrub(v.ID); got.Asked != 100 {
		t.Fatalf("asked for: %+v", got)
	}
	progress := RecordScrub{Volume: v.ID, Epoch: view.Epoch, At: 300, Began: 250, Offset: 1 << 20, Covered: everyReplica(v), Found: Found{Repaired: 4096}}
	m.must(progress)
	want := Scrub{Volume: v.ID, Began: 250, Wanted: true, Offset: 1 << 20, Covered: everyReplica(v), Found: Found{Repaired: 4096}}
	if got := m.Scrub(v.ID); !reflect.DeepEqual(got, want) {
		t.Fatalf("under way: %+v, want %+v", got, want)
	}
	m.must(RequestScrub{Volume: v.ID, At: 350}) // that is the one under way
	end := progress
	end.At, end.Ended, end.Found.Lost = 400, true, 8192
	m.must(end)
	want = Scrub{Volume: v.ID, Verified: 400, Ended: 400, Found: Found{Repaired: 4096, Lost: 8192}}
	if got := m.Scrub(v.ID); !reflect.DeepEqual(got, want) {
		t.Fatalf("ended: %+v, want %+v", got, want)
	}
	m.must(progress) // late
	if got := m.Scrub(v.ID); !reflect.DeepEqual(got, want) {
		t.Fatalf("after a late report: %+v, want %+v", got, want)
	}
	if got := m.volume(1); !reflect.DeepEqual(got, v) {
		t.Fatalf("the volume changed: %+v, was %+v", got, v)
	}
}

// Fully verified is only what was read on every replica that the volume has.
func TestScrubThatDoesNotCoverAll(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	view := m.start()
	v := m.volume(1)
	m.must(RecordScrub{Volume: v.ID, Epoch: view.Epoch, At: 10, Began: 5, Offset: 1 << 30, Covered: everyReplica(v), Ended: true})
	m.must(RecordScrub{Volume: v.ID, Epoch: view.Epoch, At: 20, Began: 15, Offset: 1 << 30, Covered: everyReplica(v)[1:], Ended: true})
	if got := m.Scrub(v.ID); got.Verified != 10 || got.Ended != 20 {
		t.Fatalf("%+v", got)
	}
}

func TestScrubRefusals(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	good := RecordScrub{Volume: volumeID(1), Epoch: 1, At: 10, Began: 5}
	wantErr(t, m.apply(good), block.ErrStaleEpoch) // nobody has it attached
	view := m.start()
	good.Epoch = view.Epoch
	for name, c := range map[string]struct {
		command Command
		want    error
	}{
		"other epoch":       {RecordScrub{Volume: volumeID(1), Epoch: view.Epoch - 1, At: 10, Began: 5}, block.ErrStaleEpoch},
		"no volume":         {RecordScrub{Volume: volumeID(9), Epoch: view.Epoch, At: 10, Began: 5}, block.ErrNotFound},
		"no time":           {RecordScrub{Volume: volumeID(1), Epoch: view.Epoch, Began: 5}, block.ErrInvalid},
		"negative offset":   {RecordScrub{Volume: volumeID(1), Epoch: view.Epoch, At: 10, Began: 5, Offset: -1}, block.ErrInvalid},
		"too much":          {RecordScrub{Volume: volumeID(1), Epoch: view.Epoch, At: 10, Findings: make([]Finding, FindingsMax+1)}, block.ErrInvalid},
		"request, no time":  {RequestScrub{Volume: volumeID(1)}, block.ErrInvalid},
		"request, unknown":  {RequestScrub{Volume: volumeID(9), At: 1}, block.ErrNotFound},
		"negative interval": {SetSettings{ScrubInterval: number(-1)}, block.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) { wantErr(t, m.apply(c.command), c.want) })
	}
	m.must(good)
}

// The newest findings are kept, each once, also when no walk is under way.
func TestFindingsAreKept(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	view := m.start()
	for n := int64(1); n <= FindingsMax+4; n++ {
		c := RecordScrub{Volume: volumeID(1), Epoch: view.Epoch, At: n, Findings: []Finding{finding(n)}}
		m.must(c)
		m.must(c)
	}
	got := m.Scrub(volumeID(1))
	if len(got.Findings) != FindingsMax || got.Findings[0] != finding(5) || got.Findings[FindingsMax-1] != finding(FindingsMax+4) {
		t.Fatalf("%+v", got.Findings)
	}
	again := finding(6)
	again.At = 99
	m.must(RecordScrub{Volume: volumeID(1), Epoch: view.Epoch, At: 99, Findings: []Finding{again}})
	if got := m.Scrub(volumeID(1)); len(got.Findings) != FindingsMax || got.Findings[FindingsMax-1] != again || got.Findings[1] != finding(7) {
		t.Fatalf("found again: %+v", got.Findings)
	}
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true})
	m.must(DeleteVolume{Volume: volumeID(1)})
	if got := m.Scrub(volumeID(1)); got.Findings != nil {
		t.Fatalf("a deleted volume has %+v", got)
	}
}

func TestSettings(t *testing.T) {
	m := newMachine(t)
	if got := m.Settings(); got != DefaultSettings() {
		t.Fatalf("%+v", got)
	}
	m.must(SetSettings{ScrubInterval: number(0)})
	m.must(SetSettings{ScrubRate: number(5)})
	if got := m.Settings(); got != (Settings{ScrubRate: 5}) {
		t.Fatalf("%+v", got)
	}
}

// scrubbing is a report about a walk or a finding, some of an engine that is gone, some
// repeated, some late.
func (c *chaos) scrubbing(m *machine, v Volume) Command {
	r := m.Scrub(v.ID)
	began := r.Began
	if began == 0 || c.IntN(8) == 0 {
		began = int64(c.drawn)
	}
	report := RecordScrub{
		Volume: v.ID, Epoch: v.View.Epoch - block.Epoch(c.IntN(8)/7), At: int64(c.drawn), Began: began * int64(c.IntN(4)) / 3,
		Offset: r.Offset + c.Int64N(2)<<20, Covered: everyReplica(v), Ended: c.IntN(4) == 0,
	}
	if c.IntN(3) == 0 {
		report.Findings = []Finding{finding(int64(c.drawn))}
	}
	return report
}

// scrubsFollow holds the records of two states against each other: what is known of the
// past stays, and nothing of it is known of a volume that is gone.
func scrubsFollow(t *testing.T, before, after *State, c Command, r Result) {
	t.Helper()
	for old := range before.Scrubs() {
		v, ok := after.Volume(old.Volume)
		if !ok || v.Deleting {
			continue
		}
		now := after.Scrub(old.Volume)
		same := reflect.DeepEqual(old, now)
		_, report := c.(RecordScrub)
		_, request := c.(RequestScrub)
		if !same && (r.Err != nil || !report && !request) {
			t.Fatalf("%s changed the scrub of volume %s from %+v to %+v", c.Kind(), old.Volume, old, now)
		}
		if now.Ended < old.Ended || now.Verified < old.Verified || len(now.Findings) < len(old.Findings) && !slices.Equal(now.Findings, old.Findings) {
			t.Fatalf("%s forgot something of volume %s: %+v, was %+v", c.Kind(), old.Volume, now, old)
		}
	}
}
