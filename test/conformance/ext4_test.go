//go:build e2e

package conformance

import "testing"

// TestExt4Growth: an ext4 grows while it is in use, and so does one that was restored
// into a larger volume. The kernel wants CAP_SYS_RESOURCE for that, which the guest has
// and not every machine.
func TestExt4Growth(t *testing.T) {
	l := newLand(t)
	const small, larger = 64 * mib, 128 * mib
	source := l.volume(l.Nodes[0], "source", small, fileSystem(), nil)
	l.write(source, "kept")
	kept := l.snapshot(source, "s1")
	for range 2 {
		l.expand(source, larger)
	}
	restored := l.volume(l.Nodes[1], "restored", larger, fileSystem(), ofSnapshot(kept))
	for name, p := range map[string]*pod{"expanded": source, "restored": restored} {
		l.expect(p, "kept")
		if bytes := l.fileSystemBytes(p); bytes < larger*8/10 {
			t.Errorf("the %s file system has %d MiB", name, bytes/mib)
		}
		l.within(p.down)
	}
}
