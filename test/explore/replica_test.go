package explore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/internal/wire"
	"github.com/holdfast-io/holdfast/replica/server"
	"github.com/holdfast-io/holdfast/replica/store"
)

// TestReplica compares the explorer's replica with the real server on the real
// store: the same random requests, kills and losses of power have the same
// answers, or after a crash one of those that the explorer tries.
func TestReplica(t *testing.T) {
	const runs, steps = 12, 220
	suspects, losses := 0, 0
	for seed := range uint64(runs) {
		p := newPair(t, seed)
		p.cuts = seed%3 == 0
		for range steps {
			p.step()
			if t.Failed() {
				t.Fatalf("seed %d, after %v", seed, p.done)
			}
		}
		p.end()
		suspects += p.suspects
		losses += p.losses
	}
	if suspects == 0 || losses == 0 {
		t.Errorf("%d crashes left suspect blocks and %d took values away", suspects, losses)
	}
}

// pair is a real replica beside a modelled one.
type pair struct {
	t     *testing.T
	rng   *rand.Rand
	stock *stock
	model replica
	done  []string

	executor  *vfs.StepExecutor
	device    *vfs.MemDevice
	directory *pebblevfs.MemFS
	store     *store.Store
	host      *server.Host
	sessions  []*pairSession
	replies   []block.Reply
	seq       uint64
	epoch     block.Epoch
	session   block.Session
	revision  block.Revision
	flushes   uint64
	// suspects are the crashes after which blocks were suspect, losses those
	// after which the drive held something older.
	suspects, losses int
	// cuts: it takes cuts, and does not lose power.
	cuts bool
}

type pairSession struct {
	wire    wire.Session
	epoch   block.Epoch
	session block.Session
}

const pairBlocks = 2

func newPair(t *testing.T, seed uint64) *pair {
	t.Helper()
	p := &pair{t: t, rng: rand.New(rand.NewPCG(seed, 1)), stock: newStock(pairBlocks*block.BlockSize, firstValue+maxWrites),
		executor: &vfs.StepExecutor{}, directory: pebblevfs.NewCrashableMem(), model: replica{boot: first}, epoch: 1}
	for b := range p.model.may {
		p.model.may[b] = 1
	}
	p.device = vfs.NewMemDevice(p.executor, 1<<30)
	p.must(p.directory.MkdirAll("disk", 0o700))
	root, err := p.directory.OpenDir("")
	p.must(err)
	p.must(root.Sync())
	p.must(store.Format(p.options(), store.Identity{Cluster: clusterID, Node: nodeID(0), Disk: diskID(0)}))
	p.boot()
	p.must(p.host.CreateReplica(diskID(0), replicaID(0), volumeID, p.stock.size))
	p.open()
	return p
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%v, after %v", err, p.done)
	}
}

func (p *pair) options() store.Options {
	return store.Options{
		Dir: p.directory, Path: "disk", Device: p.device, Executor: p.executor, Cluster: clusterID,
		Incarnation: incarnation(p.model.boot), Logger: slog.New(slog.DiscardHandler),
		Reserve: 1 << 20, GrowStep: block.ExtentSize, MemTableSize: 256 << 10, CacheSize: 1 << 20, MaxChanged: 256,
		JournalSize: 64 << 10, Simulated: true,
	}
}

func (p *pair) boot() {
	opened, err := store.Open(p.options())
	p.must(err)
	p.store = opened
	p.host, err = server.NewHost(clusterID, server.DefaultLimits())
	p.must(err)
	p.must(p.host.AddDisk(server.StoreDisk(opened)))
	p.sessions = nil
}

func (p *pair) end() { p.must(p.store.Abandon()) }

// drain runs the jobs of the store, in any order.
func (p *pair) drain() {
	for p.executor.Pending() > 0 {
		p.executor.Step(p.rng.IntN(p.executor.Pending()))
	}
}

func (p *pair) step() {
	switch roll := p.rng.IntN(100); {
	case roll < 7:
		p.open()
	case roll < 12:
		p.crash(false)
		p.open()
	case roll < 17:
		p.crash(!p.cuts)
		p.open()
	default:
		s := p.sessions[len(p.sessions)-1]
		if len(p.sessions) > 1 && roll < 25 {
			s = p.sessions[p.rng.IntN(len(p.sessions))]
		}
		req := p.request(s)
		p.ask(s, &req)
	}
}

// open makes a session, of the same epoch or a newer one, now and then of one
// that is too old.
func (p *pair) open() {
	switch roll := p.rng.IntN(10); {
	case roll < 5:
		p.session++
	case roll < 8:
		p.epoch, p.session = p.epoch+1, 1
	default:
		p.openAs(max(1, p.epoch-1), p.session)
		p.session++
	}
	p.openAs(p.epoch, p.session)
}

func (p *pair) openAs(epoch block.Epoch, session block.Session) {
	s := &pairSession{epoch: epoch, session: session}
	s.wire = p.host.Accept(func(rep block.Reply, _ *turn.Turn) { p.replies = append(p.replies, rep) })
	fence := block.Fence{Incarnation: 1, Generation: 1, Epoch: epoch, Session: session}
	req := block.Request{Op: block.OpOpen, Epoch: epoch, Session: session, Open: &block.Open{
		Cluster: clusterID, Volume: volumeID, Replica: replicaID(0), Fence: fence, Size: p.stock.size,
	}}
	if p.ask(s, &req) {
		p.sessions = append(p.sessions, s)
	}
}

// request draws what an engine may ask.
func (p *pair) request(s *pairSession) block.Request {
	first := p.rng.IntN(pairBlocks)
	n := 1 + p.rng.IntN(pairBlocks-first)
	if p.cuts && p.rng.IntN(3) == 0 {
		return p.cutRequest(s)
	}
	req := block.Request{Epoch: s.epoch, Session: s.session, Offset: int64(first) * block.BlockSize, Length: int64(n) * block.BlockSize}
	switch roll := p.rng.IntN(20); {
	case roll < 5:
		req.Op = block.OpWrite
		values := make([]value, n)
		for i := range values {
			values[i] = value(p.rng.IntN(firstValue + maxWrites))
		}
		req.Buf = p.stock.buffer(values)
	case roll < 6:
		req.Op = block.OpZero
	case roll < 10:
		req.Op = block.OpRead
		if p.rng.IntN(3) == 0 {
			req.Flags = block.FlagAcceptSuspect
		}
	case roll < 12:
		req.Op, req.Offset, req.Length = block.OpHash, 0, p.stock.size
	case roll < 14:
		p.flushes++
		req.Op, req.Offset, req.Length = block.OpFlush, 0, 0
		req.Flush = block.FlushNumber{Epoch: s.epoch, N: p.flushes}
		req.Confirmed = []block.Confirmed{{Replica: replicaID(1 + p.rng.IntN(2)), Flush: block.FlushNumber{Epoch: 1, N: p.flushes}}}
	case roll < 15:
		req.Op, req.Offset, req.Length = block.OpPing, 0, 0
	default:
		req.Op, req.Offset, req.Length, req.Update = block.OpUpdate, 0, 0, p.update(s)
	}
	return req
}

// cutRequest draws what an engine may ask about cuts. They are taken in their order.
func (p *pair) cutRequest(s *pairSession) block.Request {
	id := snapshotID(p.rng.IntN(maxCuts))
	req := block.Request{Epoch: s.epoch, Session: s.session, Length: p.stock.size, Snapshot: id, Flags: block.FlagResync}
	switch roll := p.rng.IntN(12); {
	case roll < 2:
		req.Op = block.OpRead
	case roll < 4 || roll < 7 && p.holes(cutOf(id)):
		req.Op = block.OpHash
	case roll < 6:
		req.Op = block.OpWrite
		req.Buf = p.stock.buffer([]value{value(p.rng.IntN(firstValue + maxWrites)), value(p.rng.IntN(firstValue + maxWrites))})
	case roll < 7:
		req.Op = block.OpZero
	default:
		req = block.Request{Op: block.OpUpdate, Epoch: s.epoch, Session: s.session, Update: p.cutUpdate(id)}
	}
	return req
}

// holes reports whether a cut has blocks without data that the layer above may have from
// it: whether that has what the cut is given there depends on the rest of the extent.
func (p *pair) holes(i int) bool {
	c := &p.model.cuts[i]
	for b := range pairBlocks {
		if c.held && c.cur[b] == 0 && c.shared>>b&1 == 1 {
			return true
		}
	}
	return false
}

func (p *pair) cutUpdate(id block.SnapshotID) *block.Update {
	switch roll := p.rng.IntN(6); {
	case roll == 0:
		return &block.Update{DropCuts: []block.SnapshotID{id}}
	case roll == 1:
		return &block.Update{ValidCuts: []block.SnapshotID{id}}
	case id == snapshotID(0) && p.model.cuts[1].held && !p.model.cuts[0].held:
		return &block.Update{}
	}
	return &block.Update{Cuts: []block.CutRequest{{Snapshot: id, Epoch: 1, Target: p.rng.IntN(2) == 0}}}
}

func (p *pair) update(s *pairSession) *block.Update {
	u := &block.Update{}
	set := func() block.DirtySet {
		return block.DirtySet{Replica: replicaID(1 + p.rng.IntN(2)), Removal: block.Revision(1 + p.rng.IntN(2)),
			Regions: regionSet(uint8(p.rng.IntN(2)))}
	}
	switch p.rng.IntN(8) {
	case 6:
		u.KeepHead = true
	case 7:
		u.DropCuts = []block.SnapshotID{block.KeptHead}
	case 0:
		p.revision++
		u.View = &block.View{Volume: volumeID, Epoch: s.epoch, Revision: p.revision,
			Replicas: []block.Member{{ID: replicaID(0)}, {ID: replicaID(1)}, {ID: replicaID(2)}}}
		if p.rng.IntN(4) == 0 {
			u.View.Revision = 1 // older than what is there
		}
		u.SetDirty = []block.DirtySet{set()}
	case 1:
		u.SetDirty = []block.DirtySet{set(), set()}
	case 2:
		u.AddDirty = []block.DirtySet{set()}
	case 3:
		u.ClearDirty = []block.DirtySet{set()}
	case 4:
		u.DropDirty = []block.ReplicaID{replicaID(1 + p.rng.IntN(2))}
	default:
		u.ClearLog = regionSet(1)
	}
	return u
}

// ask hands a request to both and compares the answers. It reports success.
func (p *pair) ask(s *pairSession, req *block.Request) bool {
	p.seq++
	req.Seq = p.seq
	p.done = append(p.done, fmt.Sprintf("(%d,%d) %s", s.epoch, s.session, describeRequest(!apart, req)))
	before := p.model
	want := p.model.handle(p.stock, s.epoch, s.session, req)
	p.replies = nil
	sent := *req
	if req.Buf != nil {
		sent.Buf = req.Buf.Retain()
	}
	s.wire.Handle(sent, nil)
	p.drain()
	if len(p.replies) != 1 || p.replies[0].Seq != req.Seq {
		p.t.Errorf("%d replies", len(p.replies))
		return false
	}
	got := &p.replies[0]
	if !errors.Is(got.Err, want.Err) || (got.Err == nil) != (want.Err == nil) {
		p.t.Errorf("the real replica answers %v, the explorer's %v", got.Err, want.Err)
		return false
	}
	if got.Err != nil {
		p.model = before
		return false
	}
	content := p.model.cur
	if i := cutOf(req.Snapshot); i >= 0 {
		content = p.model.cuts[i].cur
	}
	p.compare(got, &want, content)
	return true
}

func (p *pair) compare(got, want *block.Reply, content [maxBlocks]value) {
	if (got.Buf == nil) != (want.Buf == nil) || got.Buf != nil && !slices.Equal(got.Buf.Data, want.Buf.Data) {
		p.t.Errorf("a read differs")
	}
	if len(got.Hashes) != len(want.Hashes) {
		p.t.Errorf("%d hashes, not %d", len(got.Hashes), len(want.Hashes))
		return
	}
	for i := range got.Hashes {
		g, w := &got.Hashes[i], &want.Hashes[i]
		extent := make([]byte, block.ExtentSize)
		copy(extent, p.stock.buffer(content[:pairBlocks]).Data)
		sum := sha256.Sum256(extent)
		if g.Suspect != w.Suspect || g.Bad != w.Bad || g.Suspect == 0 && g.Sum != sum {
			p.t.Errorf("a hash differs: %+v, not %+v", g, w)
		}
	}
	if got.Opened == nil {
		return
	}
	g, w := got.Opened, want.Opened
	slices.SortFunc(g.Dirty, func(a, b block.DirtySet) int { return indexOf(a.Replica) - indexOf(b.Replica) })
	slices.SortFunc(g.Confirmed, func(a, b block.Confirmed) int { return indexOf(a.Replica) - indexOf(b.Replica) })
	if a, b := describeOpened(g), describeOpened(w); a != b {
		p.t.Errorf("opened: the real replica says %s, the explorer's %s", a, b)
	}
}

func describeOpened(o *block.Opened) string {
	text := fmt.Sprintf("boot %d view (%d, %d) log %b flush %v confirmed %v size %d", o.Incarnation.Boot[0], o.View.Epoch,
		o.View.Revision, regionBits(o.Log), o.Flush, o.Confirmed, o.Size)
	// The kept head may have been taken between two others.
	slices.SortFunc(o.Cuts, func(a, b block.Cut) int { return cutOf(a.Snapshot) - cutOf(b.Snapshot) })
	for _, c := range o.Cuts {
		text += fmt.Sprintf(" cut %d kept %v valid %v, %d bytes", cutOf(c.Snapshot), c.Kept, c.Valid, c.Size)
	}
	for _, d := range o.Dirty {
		text += fmt.Sprintf(" %s@%d %b", letter(indexOf(d.Replica)), d.Removal, regionBits(d.Regions))
	}
	return text
}

// crash ends both. What is found afterwards on the real disk must be one of the
// things that the explorer tries, and the modelled one goes on from there.
func (p *pair) crash(power bool) {
	p.done = append(p.done, fmt.Sprintf("crash, power lost: %v", power))
	p.must(p.store.Abandon())
	p.executor.Drop()
	forgettable := p.model.forgettable()
	if power {
		fate := p.rng.Uint64()
		p.device = p.device.Crash(p.executor, func(i int, _ vfs.UnsyncedWrite, sector int) bool {
			const sectors = block.BlockSize / block.SectorSize
			return fate>>((i*pairBlocks+sector/sectors)%64)&1 == 1
		})
		p.directory = p.directory.CrashClone(pebblevfs.CrashCloneCfg{})
		may := p.model.may
		p.model.losePower(false, p.model.cur)
		p.boot()
		p.found(forgettable, may)
		return
	}
	p.device = p.device.Kill(p.executor, func(int, vfs.UnsyncedWrite, int) bool { return true })
	p.model.kill(false)
	p.boot()
	var may [maxBlocks]uint8
	for b := range may {
		may[b] = 1 << p.model.cur[b]
	}
	p.found(forgettable, may)
}

// found looks at the blocks of the real replica and takes over what it finds.
func (p *pair) found(forgettable uint8, may [maxBlocks]uint8) {
	raw := p.host.Accept(func(rep block.Reply, _ *turn.Turn) { p.replies = append(p.replies, rep) })
	fence := p.model.fence
	fence.Session += 1000
	p.session = fence.Session
	p.epoch = fence.Epoch
	ask := func(req block.Request) block.Reply {
		p.replies = nil
		req.Epoch, req.Session = fence.Epoch, fence.Session
		raw.Handle(req, nil)
		p.drain()
		return p.replies[0]
	}
	p.must(ask(block.Request{Op: block.OpOpen, Open: &block.Open{Cluster: clusterID, Volume: volumeID,
		Replica: replicaID(0), Fence: fence, Size: p.stock.size}}).Err)
	p.model.fence = fence
	suspect := uint8(ask(block.Request{Op: block.OpHash, Length: p.stock.size}).Hashes[0].Suspect)
	if suspect&^(forgettable|p.model.suspect) != 0 {
		p.t.Errorf("blocks %b are suspect, the explorer would try at most %b", suspect, forgettable)
	}
	p.model.suspect = 0
	if suspect != 0 {
		p.suspects++
	}
	for b := range pairBlocks {
		rep := ask(block.Request{Op: block.OpRead, Flags: block.FlagAcceptSuspect, Offset: int64(b) * block.BlockSize,
			Length: block.BlockSize})
		p.must(rep.Err)
		v := rep.Buf.Data[0]
		if may[b]>>v&1 == 0 {
			p.t.Errorf("block %d holds %d after the crash, the explorer would try %b", b, v, may[b])
		}
		if v != p.model.cur[b] {
			p.losses++
		}
		p.model.cur[b], p.model.may[b] = v, p.model.may[b]|1<<v
		if may[b] != 1<<v || suspect>>b&1 == 1 {
			p.model.fresh |= 1 << b // its checksum was taken as found
		}
	}
}
