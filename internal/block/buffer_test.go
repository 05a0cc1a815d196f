package block

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func TestBuffers(t *testing.T) {
	held := map[*byte]*Buffer{}
	for _, n := range []int{1, BlockSize, BlockSize + 1, ExtentSize, 3 * ExtentSize, MaxTransfer, MaxTransfer + BlockSize} {
		for range 20 {
			b := NewBuffer(n)
			first := unsafe.SliceData(b.Data)
			if len(b.Data) != n || uintptr(unsafe.Pointer(first))%BlockSize != 0 || held[first] != nil {
				t.Fatalf("%d bytes: %d at %p, held %v", n, len(b.Data), first, held[first])
			}
			held[first] = b
			b.Data[0], b.Data[n-1] = byte(n), byte(n)
		}
	}
	for _, b := range held {
		if n := len(b.Data); b.Data[0] != byte(n) || b.Data[n-1] != byte(n) {
			t.Errorf("a buffer of %d bytes was written over", n)
		}
		b.Retain().Release()
		b.Release()
	}
}

// TestLargeBuffersInHugePages asks the kernel how it was asked for their memory: whether
// it had a huge page just then is its own affair.
func TestLargeBuffersInHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skipf("this kernel is built without huge pages: %v", err)
	}
	for n, want := range map[int]bool{BlockSize: false, ExtentSize: true, 4 * ExtentSize: true, MaxTransfer: true} {
		b := NewBuffer(n)
		b.Data[0] = 1
		flags := flagsOf(t, uintptr(unsafe.Pointer(unsafe.SliceData(b.Data))))
		if got := slices.Contains(flags, "hg"); got != want {
			t.Errorf("a buffer of %d bytes: flags %q", n, flags)
		}
		b.Release()
	}
}

// flagsOf are those of the mapping that address lies in (proc(5), VmFlags).
func flagsOf(t *testing.T, address uintptr) []string {
	t.Helper()
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	inside := false
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= address && address < to
		}
		if flags, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("nothing is mapped at %x: %v", address, lines.Err())
	return nil
}

func BenchmarkBuffer(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewBuffer(MaxTransfer).Release()
	}
}
