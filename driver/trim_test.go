package driver

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// watchedTrims tells of every trim, and holds those of a path until they are ended.
type watchedTrims struct {
	mounter
	begun chan string
	hold  bool
}

func (m *watchedTrims) Trim(ctx context.Context, target string) (string, error) {
	m.begun <- target
	if m.hold {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return m.mounter.Trim(ctx, target)
}

func newWatchedTrims(f *nodeFixture, hold bool) *watchedTrims {
	w := &watchedTrims{mounter: f.mounter, begun: make(chan string, 10), hold: hold}
	f.mounter = w
	return w
}

// TestTrimGivesSpaceBack: by its schedule, with a real file system on a real device.
func TestTrimGivesSpaceBack(t *testing.T) {
	f := newNodeFixture(t)
	must(t, f.stage(t, writer()), f.publish(t, "a", writer(), false))
	kept, large := filepath.Join(f.pods, "a", "kept"), filepath.Join(f.pods, "a", "large")
	must(t, os.WriteFile(kept, []byte("kept"), 0o600), os.WriteFile(large, bytes.Repeat([]byte("gone"), 8*mib), 0o600))
	must(t, exec.CommandContext(t.Context(), "sync", "--file-system", f.staging).Run())
	must(t, os.Remove(large), exec.CommandContext(t.Context(), "sync", "--file-system", f.staging).Run())
	if used := f.allocated(t); used < 32*mib {
		t.Fatalf("before it is trimmed the device has %d bytes", used)
	}

	watched := newWatchedTrims(f, false)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { (&trimmer{node: f.node, interval: time.Millisecond}).run(ctx) })
	// The second round begins when the first has ended.
	for range 2 {
		if path := <-watched.begun; path != f.staging {
			t.Errorf("trimmed by %s", path)
		}
	}
	cancel()
	running.Wait()
	if used := f.allocated(t); used > 16*mib {
		t.Errorf("after it was trimmed the device has %d bytes", used)
	}
	if got, err := os.ReadFile(kept); err != nil || string(got) != "kept" {
		t.Errorf("the file reads %q, %v", got, err)
	}
}

// allocated is how many bytes of the device are on the machine's disk.
func (f *nodeFixture) allocated(t *testing.T) int64 {
	t.Helper()
	file, err := exec.CommandContext(t.Context(), "losetup", "--noheadings", "--output", "BACK-FILE", f.daemon.device).Output()
	must(t, err)
	out, err := exec.CommandContext(t.Context(), "du", "--block-size=1", strings.TrimSpace(string(file))).Output()
	must(t, err)
	var used int64
	for _, digit := range string(out[:bytes.IndexByte(out, '\t')]) {
		used = 10*used + int64(digit-'0')
	}
	return used
}

// TestTrimGivesWay: whoever wants the volume does not wait for a trim of it.
func TestTrimGivesWay(t *testing.T) {
	f := newNodeFixture(t)
	must(t, f.stage(t, writer()))
	watched := newWatchedTrims(f, true)
	trims := &trimmer{node: f.node}
	var round sync.WaitGroup
	round.Go(func() { trims.round(t.Context()) })
	<-watched.begun
	must(t, f.publish(t, "a", writer(), false))
	round.Wait()

	done, err := f.running.begin(testVolume)
	must(t, err)
	trims.round(t.Context())
	if len(watched.begun) > 0 {
		t.Error("trimmed while a call was running")
	}
	_, err = f.running.begin(testVolume)
	expectCode(t, "a second call", err, codes.Aborted, "still running")
	done()
	must(t, f.unpublish(t, "a"), f.unstage(t))
}

// TestWhatIsNotTrimmed: what cannot be, and what a trim could hang on.
func TestWhatIsNotTrimmed(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, f *nodeFixture){
		"read-only": func(t *testing.T, f *nodeFixture) {
			must(t, f.stage(t, writer()), f.unstage(t))
			must(t, f.stage(t, mountCapability(1, "", "ro")))
		},
		"a device": func(t *testing.T, f *nodeFixture) {
			must(t, f.stage(t, blockCapability(1)), f.publish(t, "a", blockCapability(1), false))
		},
		"frozen": func(t *testing.T, f *nodeFixture) {
			must(t, f.stage(t, writer()))
			f.daemon.volume.Engine = &holdfastv1.EngineStatus{Frozen: "no quorum"}
		},
		"an attachment that has ended": func(t *testing.T, f *nodeFixture) {
			must(t, f.stage(t, writer()))
			f.daemon.setAttachment(strings.Repeat("b", 32))
		},
		"nothing": func(*testing.T, *nodeFixture) {},
	} {
		t.Run(name, func(t *testing.T) {
			f := newNodeFixture(t)
			prepare(t, f)
			watched := newWatchedTrims(f, false)
			(&trimmer{node: f.node}).round(t.Context())
			if len(watched.begun) > 0 {
				t.Errorf("trimmed is %s", <-watched.begun)
			}
		})
	}
}

// TestYieldingWorkIsWaitedFor, but not for long.
func TestYieldingWorkIsWaitedFor(t *testing.T) {
	f := newInFlight()
	ctx, done, err := f.beginYielding(t.Context(), "v")
	must(t, err)
	var order []string
	var work sync.WaitGroup
	work.Go(func() {
		<-ctx.Done()
		order = append(order, "work")
		done()
	})
	release, err := f.begin("v", "w")
	must(t, err)
	order = append(order, "call")
	work.Wait()
	if !slices.Equal(order, []string{"work", "call"}) {
		t.Errorf("the order was %v", order)
	}
	// The work has ended, the call still holds the key.
	_, _, err = f.beginYielding(t.Context(), "v")
	expectCode(t, "other work", err, codes.Aborted, "still running")
	release()
	_, hung, err := f.beginYielding(t.Context(), "w")
	must(t, err)
	release, err = f.begin("w")
	must(t, err)
	release()
	hung()
}
