package core

import (
	"math/rand/v2"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestChunksOfTheLastRegion(t *testing.T) {
	for _, c := range []struct {
		region block.Region
		size   int64
		want   uint16
	}{
		{0, 16 * mib, 0xffff},
		{0, 512, 1},
		{0, mib, 1},
		{0, mib + 512, 3},
		{1, 17 * mib, 1},
		{1, 32*mib - 512, 0xffff},
		{1, 31 * mib, 0x7fff},
	} {
		if got := chunksOf(c.region, c.size); got != c.want {
			t.Errorf("chunks of region %d in %d bytes: %x, want %x", c.region, c.size, got, c.want)
		}
	}
}

// The set of divergent chunks against a map, with random operations.
func TestDivergenceAgainstNaiveReference(t *testing.T) {
	const size = 70*mib + 512
	const chunks = 71
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 2))
		var d divergence
		naive := map[int64]bool{}
		for range 100 {
			if random.IntN(4) == 0 {
				var regions block.Regions
				r := block.Region(random.IntN(6)) // one past the end
				regions.Add(r)
				d.addRegions(size, regions)
				for k := int64(r) * block.ChunksPerRegion; k < min(chunks, int64(r+1)*block.ChunksPerRegion); k++ {
					naive[k] = true
				}
			} else {
				k := random.Int64N(chunks)
				d.remove(k)
				delete(naive, k)
			}
			compareDivergence(t, &d, naive, random)
		}
	}
}

func compareDivergence(t *testing.T, d *divergence, naive map[int64]bool, random *rand.Rand) {
	t.Helper()
	if d.count != len(naive) {
		t.Fatalf("%d chunks, want %d", d.count, len(naive))
	}
	chunk := random.Int64N(71)
	if d.has(chunk) != naive[chunk] {
		t.Fatalf("chunk %d: %v", chunk, d.has(chunk))
	}
	r, inRegion := block.Region(chunk/block.ChunksPerRegion), false
	for k := range naive {
		inRegion = inRegion || k/block.ChunksPerRegion == int64(r)
	}
	if d.region(r) != inRegion {
		t.Fatalf("region %d: %v", r, d.region(r))
	}
	span := block.Span{Offset: 512 * random.Int64N(69*mib/512), Length: 512 * (1 + random.Int64N(4096))}
	first := int64(-1)
	for k := span.Offset / mib; k <= (span.End()-1)/mib && first < 0; k++ {
		if naive[k] {
			first = k
		}
	}
	if d.firstIn(span) != first || d.touches(span) != (first >= 0) {
		t.Fatalf("span %+v: first %d, want %d", span, d.firstIn(span), first)
	}
	if next := d.next(func(k int64) bool { return k%2 == 0 }); next >= 0 && (next%2 == 0 || !naive[next]) {
		t.Fatalf("next is %d", next)
	} else if next < 0 {
		for k := range naive {
			if k%2 == 1 {
				t.Fatalf("next is none, but %d is there", k)
			}
		}
	}
}

// The chunks that a target lacks: taken once, back when missed, all of them seen.
func TestTargetChunks(t *testing.T) {
	const size = 40 * mib
	tg := &target{}
	all := block.AllRegions(size)
	for r := range all.All() {
		for k := range int64(block.ChunksPerRegion) {
			if chunk := int64(r)*block.ChunksPerRegion + k; chunk < 40 {
				tg.missChunk(chunk)
				tg.missChunk(chunk) // twice is once
			}
		}
	}
	if tg.todo.count != 40 || tg.remaining() != size || !tg.missing.Contains(all) {
		t.Fatalf("left %d, remaining %d, missing %v", tg.todo.count, tg.remaining(), tg.missing)
	}
	seen := map[int64]bool{}
	for {
		chunk := tg.nextChunk(func(k int64) bool { return seen[k] })
		if chunk < 0 {
			break
		}
		seen[chunk] = true
		tg.todo.remove(chunk)
	}
	if len(seen) != 40 || tg.todo.count != 0 {
		t.Fatalf("saw %d chunks, %d are left", len(seen), tg.todo.count)
	}
}

// A region that is missed at any point of its way back is missing alone.
func TestTargetMissesARegionOnItsWay(t *testing.T) {
	stages := map[string]func(*target) *block.Regions{
		"compared": func(t *target) *block.Regions { return &t.compared },
		"in flush": func(t *target) *block.Regions { return &t.inFlush },
		"cleared":  func(t *target) *block.Regions { return &t.cleared },
		"clearing": func(t *target) *block.Regions { return &t.clearing },
	}
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			tg := &target{}
			stage(tg).Add(1)
			tg.missChunk(16)
			if stage(tg).Has(1) || !tg.missing.Has(1) || tg.todo.count != 1 {
				t.Errorf("target %+v", tg)
			}
		})
	}
}
