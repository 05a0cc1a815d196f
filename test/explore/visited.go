package explore

import "sync"

// visited are the hashes of the states that were seen, in tables that grow up to
// a bound. Two states with one hash of 128 bits count as one.
type visited struct {
	shards [shardCount]shard
}

const shardCount = 256

type shard struct {
	mu    sync.Mutex
	slots []key
	used  int
	max   int
}

// newVisited makes a set that takes at most so many bytes.
func newVisited(bytes int64) *visited {
	v := &visited{}
	for i := range v.shards {
		v.shards[i].max = int(bytes / shardCount / 16)
		v.shards[i].slots = make([]key, 1<<8)
	}
	return v
}

// add reports whether a key is new, and whether there was room for it.
func (v *visited) add(k key) (fresh, room bool) {
	if k == (key{}) {
		k[0] = 1
	}
	s := &v.shards[k[1]%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used*4 >= len(s.slots)*3 {
		// While it grows, the old table is there as well.
		if len(s.slots)*3 > s.max {
			return false, false
		}
		s.grow()
	}
	if !s.insert(k) {
		return false, true
	}
	s.used++
	return true, true
}

func (s *shard) grow() {
	old := s.slots
	s.slots = make([]key, 2*len(old))
	for _, k := range old {
		if k != (key{}) {
			s.insert(k)
		}
	}
}

func (s *shard) insert(k key) bool {
	mask := uint64(len(s.slots) - 1)
	for i := k[0] & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case key{}:
			s.slots[i] = k
			return true
		case k:
			return false
		}
	}
}

// bytes is what the tables take.
func (v *visited) bytes() int64 {
	var n int64
	for i := range v.shards {
		s := &v.shards[i]
		s.mu.Lock()
		n += int64(len(s.slots)) * 16
		s.mu.Unlock()
	}
	return n
}
