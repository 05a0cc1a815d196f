package block

import (
	"sync"
	"syscall"
)

const (
	// hugePage is the size of a huge page where pages have 4 KiB.
	hugePage = 2 << 20
	// hugePages are asked for at once. Go aligns to less, which costs the address space
	// of one more.
	hugePages = 4
)

// hugeMemory is memory for large buffers that lies in one piece in the machine, too, as
// far as the kernel has such pages. A transfer of 1 MiB is then one or two pieces for the
// disk; in pages of 4 KiB it is 256, which is more than some disks take at once, and
// each must be pinned, described and mapped by the host.
//
// It is Go's memory: whatever still points to a part of it keeps it, and a request that
// was abandoned under way, too.
type hugeMemory struct {
	mu   sync.Mutex
	rest []byte
}

// cut returns n bytes, which are aligned to BlockSize if n always is.
func (m *hugeMemory) cut(n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rest) < n {
		m.rest = alignedBytes(hugePages*hugePage, hugePage)
		// A kernel without huge pages refuses: small ones do as well, only slower.
		_ = syscall.Madvise(m.rest, syscall.MADV_HUGEPAGE)
	}
	piece := m.rest[:n:n]
	m.rest = m.rest[n:]
	return piece
}
