package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	// shotLimit bounds one: what is asked for in a fault is there when that has ended.
	shotLimit = syncLimit
	// shotCall bounds a call, shotPause is the pause before the next, as whoever asks
	// for snapshots in Kubernetes repeats its call.
	shotCall  = 10 * time.Second
	shotPause = 200 * time.Millisecond
)

// shot is a snapshot of the volume: of one moment between asked and answered.
type shot struct {
	name, id        string
	asked, answered time.Time
}

// shooter takes snapshots until it is told to stop.
type shooter struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	taken  []*shot
	err    error
}

// shoot takes a snapshot now, and every few seconds until the run of pgbench ends.
func (t *test) shoot(ctx context.Context, r *benchRun) *shooter {
	s := &shooter{}
	ctx, s.cancel = context.WithCancel(ctx)
	s.done.Go(func() {
		ticker := time.NewTicker(t.options.every)
		defer ticker.Stop()
		for {
			taken, err := t.takeShot(ctx)
			if err != nil {
				s.err = err
				return
			}
			s.taken = append(s.taken, taken)
			select {
			case <-ticker.C:
			case <-r.ended:
				return
			case <-ctx.Done():
				return
			}
		}
	})
	return s
}

// end waits until the last snapshot has been taken.
func (s *shooter) end() ([]*shot, error) {
	s.done.Wait()
	s.cancel()
	return s.taken, s.err
}

// giveUp ends it in the middle of a snapshot.
func (s *shooter) giveUp() {
	s.cancel()
	s.done.Wait()
}

// takeShot takes a snapshot through CSI, by repeated calls if it must.
func (t *test) takeShot(ctx context.Context) (*shot, error) {
	t.shotCount++
	s := &shot{name: fmt.Sprintf("shot-%d", t.shotCount), asked: time.Now()}
	err := again(ctx, "snapshot "+s.name, func(ctx context.Context) error {
		made, err := controller(t.nodes()[attached]).CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: s.name, SourceVolumeId: t.volume})
		if err == nil && !made.GetSnapshot().GetReadyToUse() {
			err = status.Error(codes.Unavailable, "it is not ready")
		}
		s.id = made.GetSnapshot().GetSnapshotId()
		return err
	})
	s.answered = time.Now()
	return s, err
}

func controller(n *harness.Node) csi.ControllerClient { return csi.NewControllerClient(n.CSI()) }

// passing are the codes of what may be better by the next call: space of what was just
// deleted comes back a little later.
var passing = []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.ResourceExhausted}

// again repeats a call until it succeeds.
func again(ctx context.Context, what string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, shotLimit)
	defer cancel()
	for {
		one, cancel := context.WithTimeout(ctx, shotCall)
		err := call(one)
		cancel()
		if err == nil {
			return nil
		}
		if !slices.Contains(passing, status.Code(err)) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if rest(ctx, shotPause); ctx.Err() != nil {
			return fmt.Errorf("%s: %w; last: %w", what, ctx.Err(), err)
		}
	}
}
