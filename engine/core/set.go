package core

import "math/bits"

// maxReplicas bounds the replicas of one volume; it is the width of set.
const maxReplicas = 64

// set is a set of replicas, by their position in Core.peers.
type set uint64

func bit(i int) set { return 1 << uint(i) }

func (s set) has(i int) bool { return s&bit(i) != 0 }

func (s set) count() int { return bits.OnesCount64(uint64(s)) }

// first is the lowest position in a set that is not empty.
func (s set) first() int { return bits.TrailingZeros64(uint64(s)) }

// all yields the positions in rising order.
func (s set) all() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for ; s != 0; s &= s - 1 {
			if !yield(s.first()) {
				return
			}
		}
	}
}
