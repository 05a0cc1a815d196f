package explore

import (
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/block"
)

// The bounds that the types here are made for.
const (
	maxReplicas = 3
	maxEngines  = 4
	maxBlocks   = 2
	maxWrites   = 4
	maxReads    = 3
	maxFlushes  = 3
)

// value is what a block holds: 0 is never written, others are numbers of writes.
type value = uint8

// replica is a copy of the volume as an engine sees it through the door of
// replica/server: one request after the other, each carried out at once. What
// that leaves out is put back by those who deliver the requests (doc.go). It has
// no pointer that is ever written through, so that a copy of it is a copy.
type replica struct {
	fence block.Fence
	// spacing is where the blocks lie; it never changes.
	spacing spacing
	// boot is the store's incarnation.
	boot uint8
	// cur is what is read, may has a bit for each value that the drive may hold
	// after a loss of power.
	cur [maxBlocks]value
	may [maxBlocks]uint8
	// fresh are the blocks whose checksum is not durable, suspect those whose
	// checksum was lost with a process.
	fresh, suspect uint8
	// kept: it has kept the head with which it left the in-sync set. What that holds is
	// asked by nobody.
	kept bool
	cuts [maxCuts]cut
	// log is the intent log, dirty the dirty sets, by replica.
	log       uint8
	dirty     [maxReplicas]dirtySet
	view      *block.View
	flush     block.FlushNumber
	confirmed [maxReplicas]block.FlushNumber
}

type dirtySet struct {
	held    bool
	removal block.Revision
	regions uint8
}

// regionBits takes a set of regions for its bits; there are few.
func regionBits(r block.Regions) uint8 {
	if len(r) == 0 {
		return 0
	}
	return uint8(r[0].Words[0])
}

func regionSet(bits uint8) block.Regions {
	if bits == 0 {
		return nil
	}
	return block.Regions{{Words: [block.RegionPageWords]uint64{uint64(bits)}}}
}

// spacing is where the blocks of the model lie in the volume: side by side, or each
// at the beginning of a region of its own. What lies between is never written.
type spacing bool

// apart spaces blocks by regions.
const apart spacing = true

func (s spacing) distance() int64 {
	if s == apart {
		return block.RegionSize
	}
	return block.BlockSize
}

// offset is where a block begins.
func (s spacing) offset(b int) int64 { return int64(b) * s.distance() }

// region is the bit of the region of a block.
func (s spacing) region(b int) uint8 { return 1 << block.RegionOf(s.offset(b)) }

// blocks are the bounds of the blocks of a request.
func (s spacing) blocks(req *block.Request) (first, end int) {
	d := s.distance()
	return int((req.Offset + d - 1) / d), int((req.Offset + req.Length + d - 1) / d)
}

func replicaID(i int) block.ReplicaID { return block.ReplicaID{ID: block.ID{byte(i + 1)}} }

// indexOf is the replica that an ID names.
func indexOf(id block.ReplicaID) int { return int(id.ID[0]) - 1 }

func nodeID(i int) block.NodeID { return block.NodeID{ID: block.ID{1: byte(i + 1)}} }

// incarnation names one life of a replica's machine.
func incarnation(boot uint8) block.Incarnation { return block.Incarnation{Boot: block.ID{boot}} }

// handle carries a request of a session out.
func (r *replica) handle(x *stock, epoch block.Epoch, session block.Session, req *block.Request) block.Reply {
	rep := block.Reply{Op: req.Op, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq}
	if req.Op == block.OpOpen {
		rep.Err = r.open(x, req.Open, &rep)
		return rep
	}
	if rep.Err = r.refusal(epoch, session); rep.Err != nil {
		return rep
	}
	if !req.Snapshot.IsZero() {
		rep.Err = r.layer(x, req, &rep)
		return rep
	}
	switch req.Op {
	case block.OpPing:
		rep.Free = free
	case block.OpRead:
		rep.Err = r.read(x, req, &rep)
	case block.OpWrite, block.OpZero:
		r.write(req)
		rep.Free = free
	case block.OpFlush:
		r.flushed(req)
	case block.OpUpdate:
		rep.Err = r.update(req.Update)
	case block.OpHash:
		rep.Hashes = r.hashes(req, &r.cur, r.suspect)
	}
	return rep
}

// free is how much space a replica says it has: there is always enough.
const free = 1 << 40

// refusal is what the door says to a session that is not the one it let in last.
func (r *replica) refusal(epoch block.Epoch, session block.Session) error {
	switch {
	case epoch < r.fence.Epoch:
		return block.ErrStaleEpoch
	case session != r.fence.Session || epoch != r.fence.Epoch:
		return block.ErrStaleSession
	}
	return nil
}

func (r *replica) open(x *stock, o *block.Open, rep *block.Reply) error {
	if !r.fence.Less(o.Fence) {
		if o.Fence.Epoch < r.fence.Epoch {
			return block.ErrStaleEpoch
		}
		return block.ErrStaleSession
	}
	r.fence = o.Fence
	opened := &block.Opened{
		Incarnation: incarnation(r.boot), Log: regionSet(r.log), Flush: r.flush, Size: x.size, Free: free,
	}
	if r.view != nil {
		opened.View = *r.view
	}
	for i, d := range r.dirty {
		if d.held {
			opened.Dirty = append(opened.Dirty, block.DirtySet{
				Replica: replicaID(i), Removal: d.removal, Regions: regionSet(d.regions),
			})
		}
	}
	for i, f := range r.confirmed {
		if f != (block.FlushNumber{}) {
			opened.Confirmed = append(opened.Confirmed, block.Confirmed{Replica: replicaID(i), Flush: f})
		}
	}
	opened.Cuts = r.openedCuts(x.size)
	rep.Opened = opened
	return nil
}

func (r *replica) read(x *stock, req *block.Request, rep *block.Reply) error {
	first, end := r.spacing.blocks(req)
	for b := first; b < end; b++ {
		if r.suspect>>b&1 == 0 {
			continue
		}
		if req.Flags&block.FlagAcceptSuspect == 0 {
			return block.ErrChecksum
		}
		r.suspect &^= 1 << b
		r.fresh |= 1 << b
	}
	rep.Buf = x.bufferOf(r.cur[first:end], req.Length)
	return nil
}

func (r *replica) write(req *block.Request) {
	first, end := r.spacing.blocks(req)
	for b := first; b < end; b++ {
		v := value(0)
		if req.Buf != nil {
			v = req.Buf.Data[(b-first)*block.BlockSize]
		}
		r.log |= r.spacing.region(b)
		r.part(b)
		r.cur[b] = v
		r.may[b] |= 1 << v
		r.fresh |= 1 << b
		r.suspect &^= 1 << b
	}
}

func (r *replica) flushed(req *block.Request) {
	for b := range r.cur {
		r.may[b] = 1 << r.cur[b]
	}
	r.flushCuts()
	r.flush = later(r.flush, req.Flush)
	for _, f := range req.Confirmed {
		i := indexOf(f.Replica)
		r.confirmed[i] = later(r.confirmed[i], f.Flush)
	}
}

func later(a, b block.FlushNumber) block.FlushNumber {
	if a.Less(b) {
		return b
	}
	return a
}

// update applies its parts in their order, all or none.
func (r *replica) update(u *block.Update) error {
	sets := r.dirty
	for i := range u.SetDirty {
		d := &u.SetDirty[i]
		sets[indexOf(d.Replica)] = dirtySet{held: true, removal: d.Removal, regions: regionBits(d.Regions)}
	}
	for i := range u.AddDirty {
		d := &u.AddDirty[i]
		s := &sets[indexOf(d.Replica)]
		switch {
		case !s.held:
			*s = dirtySet{held: true, removal: d.Removal, regions: regionBits(d.Regions)}
		case s.removal != d.Removal:
			return block.ErrConflict
		default:
			s.regions |= regionBits(d.Regions)
		}
	}
	for i := range u.ClearDirty {
		d := &u.ClearDirty[i]
		if s := &sets[indexOf(d.Replica)]; s.held && s.removal == d.Removal {
			s.regions &^= regionBits(d.Regions)
		}
	}
	for _, id := range u.DropDirty {
		sets[indexOf(id)] = dirtySet{}
	}
	r.dirty = sets
	r.kept = (r.kept || u.KeepHead) && !slices.Contains(u.DropCuts, block.KeptHead)
	r.updateCuts(u)
	if v := u.View; v != nil && (r.view == nil || viewLess(r.view, v)) {
		r.view = v
	}
	left := regionBits(u.ClearLog)
	r.log &^= left
	for b := range maxBlocks {
		if left&r.spacing.region(b) != 0 {
			r.fresh &^= 1 << b
		}
	}
	return nil
}

func viewLess(a, b *block.View) bool {
	return a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Revision < b.Revision
}

// hashes are the contents in the place of their sums.
func (r *replica) hashes(req *block.Request, cur *[maxBlocks]value, suspect uint8) []block.ExtentHash {
	first, end := r.spacing.blocks(req)
	list := make([]block.ExtentHash, (req.Length+block.ExtentSize-1)/block.ExtentSize)
	for b := first; b < end; b++ {
		at := r.spacing.offset(b) - req.Offset
		h, k := &list[at/block.ExtentSize], at%block.ExtentSize/block.BlockSize
		h.Sum[k] = cur[b]
		if suspect>>b&1 == 1 {
			h.Suspect |= 1 << k
		}
	}
	return list
}

// kill ends the process of the replica. Everything that it took is with the
// operating system, but checksums of overwritten blocks may not be.
func (r *replica) kill(forget bool) {
	if forget {
		r.suspect |= r.forgettable()
	}
	r.fresh = 0
	r.distrustCuts()
}

// forgettable are the blocks whose checksum goes with the process.
func (r *replica) forgettable() uint8 {
	var s uint8
	for b := range maxBlocks {
		if r.fresh>>b&1 == 1 && r.log&r.spacing.region(b) != 0 {
			s |= 1 << b
		}
	}
	return s
}

// putBack gives the replica the disk that it had at the beginning, in a machine that
// was started again.
func (r *replica) putBack(image *replica) {
	boot := r.boot
	*r = *image
	r.boot = boot + 1
}

// losePower leaves on the drive the given values, of those that it may hold.
func (r *replica) losePower(forget bool, left [maxBlocks]value) {
	r.kill(forget)
	for b := range r.cur {
		r.cur[b] = left[b]
		r.may[b] = 1 << left[b]
	}
	r.boot++
}

// stock are the buffers of all contents there can be. They live as long as the
// program, whoever retains or releases them.
type stock struct {
	size   int64
	values int
	one    []*block.Buffer
	two    [][]*block.Buffer
	// wide are of a whole extent of which only the first block is ever written.
	wide []*block.Buffer
}

func newStock(size int64, values int) *stock {
	x := &stock{size: size, values: values}
	for v := range values {
		x.one = append(x.one, filled(value(v)))
		x.wide = append(x.wide, filled(slices.Repeat([]value{value(v)}, block.BlocksPerExtent)...))
		var row []*block.Buffer
		for w := range values {
			row = append(row, filled(value(v), value(w)))
		}
		x.two = append(x.two, row)
	}
	x.refill()
	return x
}

func filled(list ...value) *block.Buffer {
	b := block.NewBuffer(len(list) * block.BlockSize)
	for i, v := range list {
		for k := range block.BlockSize {
			b.Data[i*block.BlockSize+k] = v
		}
	}
	return b
}

func (x *stock) buffer(list []value) *block.Buffer {
	if len(list) == 1 {
		return x.one[list[0]]
	}
	return x.two[list[0]][list[1]]
}

// bufferOf is the buffer of a span of that length in which these values lie.
func (x *stock) bufferOf(list []value, length int64) *block.Buffer {
	if length == block.ExtentSize && len(list) == 1 {
		return x.wide[list[0]]
	}
	return x.buffer(list)
}

// refill gives every buffer more references than anybody can give back before
// the next time. Copies of a core share the buffers without counting.
func (x *stock) refill() {
	for _, b := range slices.Concat(append(x.two, x.one, x.wide)...) {
		field := reflect.ValueOf(b).Elem().FieldByName("refs")
		(*atomic.Int32)(field.Addr().UnsafePointer()).Store(1 << 30)
	}
}
