package crash

import (
	"fmt"
	"math/rand/v2"
)

// Bounds say how many disks are tried at each sync.
type Bounds struct {
	// Few is up to how many lossy things all subsets are tried, Samples how many
	// random ones of more.
	Few, Samples int
	// Each, unless zero, is how many of more are lost, or kept, alone.
	Each int
	// Torn adds, for each write of more than one sector, the disks on which its first
	// or its last half alone is lost.
	Torn bool
}

// choice says what survives of the lossy things at a moment.
type choice struct {
	name string
	// keep: this sector of the i-th survives; full: the file is as long as if the
	// i-th had survived.
	keep func(i, sector int) bool
	full func(i int) bool
}

func whole(name string, keep func(i int) bool) choice {
	return choice{name: name, keep: func(i, _ int) bool { return keep(i) }, full: func(int) bool { return false }}
}

// choices yields what is tried at a moment with lossy things of so many sectors.
func (b Bounds) choices(sectors []int, seed uint64) func(yield func(choice) bool) {
	n := len(sectors)
	return func(yield func(choice) bool) {
		if n <= b.Few {
			for set := range 1 << n {
				if !yield(whole(fmt.Sprintf("subset %b", set), func(i int) bool { return set&(1<<i) != 0 })) {
					return
				}
			}
		} else if !b.many(n, seed, yield) {
			return
		}
		if b.Torn && !tear(sectors, yield) {
			return
		}
		for s := range b.Samples {
			if n > b.Few || s%2 == 1 {
				if !yield(sample(n, seed, uint64(s))) {
					return
				}
			}
		}
	}
}

func (b Bounds) many(n int, seed uint64, yield func(choice) bool) bool {
	singles := rand.New(rand.NewPCG(seed, 0)).Perm(n)
	if b.Each > 0 {
		singles = singles[:min(n, b.Each)]
	}
	for _, all := range []bool{false, true} {
		if !yield(whole(fmt.Sprintf("all: %v", all), func(int) bool { return all })) {
			return false
		}
		for _, one := range singles {
			if !yield(whole(fmt.Sprintf("%d apart from all: %v", one, all), func(i int) bool { return (i == one) != all })) {
				return false
			}
		}
	}
	return true
}

// tear yields disks with everything but half of one write.
func tear(sectors []int, yield func(choice) bool) bool {
	for one, count := range sectors {
		for _, first := range []bool{true, false} {
			if count < 2 {
				continue
			}
			c := choice{name: fmt.Sprintf("half of %d, the first: %v", one, first), full: func(int) bool { return false }}
			c.keep = func(i, sector int) bool { return i != one || (sector < count/2) == first }
			if !yield(c) {
				return false
			}
		}
	}
	return true
}

// sample is a random choice: of whole things if s is even, of sectors if it is odd.
// It is a function of its arguments alone.
func sample(n int, seed, s uint64) choice {
	random := rand.New(rand.NewPCG(seed, s))
	kept, full := make([]bool, n), make([]bool, n)
	for i := range n {
		kept[i], full[i] = random.IntN(2) == 0, random.IntN(2) == 0
	}
	c := whole(fmt.Sprintf("sample %d of seed %d", s, seed), func(i int) bool { return kept[i] })
	if s%2 == 1 {
		share := 1 + random.IntN(9)
		c.full = func(i int) bool { return full[i] }
		c.keep = func(i, sector int) bool {
			mixed := rand.New(rand.NewPCG(seed^s<<32, uint64(i)<<32|uint64(sector)))
			return mixed.IntN(10) < share
		}
	}
	return c
}
