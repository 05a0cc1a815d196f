package block

import (
	"math/rand/v2"
	"testing"
)

func TestJoinChecksum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 3*BlockSize+100)
	for range 100 {
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		head := random.IntN(BlockSize)
		sum := Checksum(b[:head])
		for at := head; at+BlockSize <= len(b); at += BlockSize {
			sum = joinChecksum(sum, Checksum(b[at:at+BlockSize]))
			if want := Checksum(b[:at+BlockSize]); sum != want {
				t.Fatalf("joined to %#x, want %#x", sum, want)
			}
		}
	}
}

// TestBufferSums: a buffer has sums if it was summed since it was taken from its pool, and
// is whole blocks.
func TestBufferSums(t *testing.T) {
	for _, n := range []int{BlockSize, MaxTransfer, MaxTransfer + BlockSize} {
		b := NewBuffer(n)
		b.Data[n-1] = 7
		if b.Sums() != nil {
			t.Errorf("%d bytes have sums already", n)
		}
		b.Sum()
		for i, sum := range b.Sums() {
			if sum != Checksum(b.Data[i*BlockSize:(i+1)*BlockSize]) {
				t.Errorf("sum %d of %d bytes is %#x", i, n, sum)
			}
		}
		if len(b.Sums()) != n/BlockSize {
			t.Errorf("%d sums of %d bytes", len(b.Sums()), n)
		}
		if got := b.Checksum(3); got != updateChecksum(3, b.Data) {
			t.Errorf("checksum %#x of %d bytes", got, n)
		}
		b.Data = b.Data[:BlockSize]
		if len(b.Sums()) != 1 {
			t.Errorf("%d sums of a block", len(b.Sums()))
		}
		b.Data = b.Data[:SectorSize]
		if b.Sums() != nil || b.Checksum(3) != updateChecksum(3, b.Data) {
			t.Errorf("a sector that is left has sums %v, checksum %#x", b.Sums(), b.Checksum(3))
		}
		b.Release()
	}
	for range 100 {
		b := NewBuffer(BlockSize)
		if b.Sums() != nil {
			t.Fatal("a buffer is taken with its sums")
		}
		b.Sum()
		b.Release()
	}
	b := NewBuffer(SectorSize)
	clear(b.Data)
	b.Sum()
	if b.Sums() != nil || b.Checksum(3) != updateChecksum(3, b.Data) {
		t.Errorf("a sector has sums %v, checksum %#x", b.Sums(), b.Checksum(3))
	}
}
