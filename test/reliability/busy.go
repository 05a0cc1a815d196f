package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// hogsPerCPU processes compete for each CPU with all daemons together.
	hogsPerCPU = 2
	// busyLook is how often the cluster is looked at, busyProgress how often a
	// person is told.
	busyLook     = time.Second
	busyProgress = 5 * time.Minute
)

// busyShape is light: what is asked is who is taken for dead, not how fast it goes.
func (b *bed) busyShape() shape {
	return shape{area: b.whole(), depth: 4, pace: 20 * time.Millisecond, reads: 4, flushes: 8}
}

// busy counts who is taken for dead while every CPU is busy with something else.
func busy(ctx context.Context, r *runner) ([]row, error) {
	b, err := r.newBed(ctx, 256*mebibyte)
	if err != nil {
		return nil, err
	}
	defer r.clean(ctx, b)
	if err := b.inSync(ctx); err != nil {
		return nil, err
	}
	load := startLoad(ctx, b.busyShape(), b.device, b.ledger, b.meter)
	counted, err := b.whileBusy(ctx, r, load)
	if err := errors.Join(err, load.stop(), r.verify(ctx, b)); err != nil {
		return nil, err
	}
	return []row{{
		Name: "busy", What: fmt.Sprintf("false removals and elections in %v, CPUs busy", r.options.Duration),
		Samples: []float64{float64(counted.elections + counted.changes)},
		Notes:   counted.notes(),
	}}, nil
}

// tally is what happened to a cluster whose CPUs were busy.
type tally struct {
	elections, changes uint64
	pause              time.Duration
	idle               float64
	hogs               int
	events             []string
}

func (t *tally) notes() []string {
	return append([]string{
		fmt.Sprintf("%d elections, %d changes of the in-sync set", t.elections, t.changes),
		fmt.Sprintf("%d processes that do nothing but use CPU; %.2f%% of the CPU time was idle", t.hogs, t.idle),
		fmt.Sprintf("the longest pause between two acknowledged writes was %d ms", t.pause.Milliseconds()),
	}, t.events...)
}

// whileBusy lets hogs loose for the duration and watches.
func (b *bed) whileBusy(ctx context.Context, r *runner, load *load) (t tally, err error) {
	_, term, err := b.leader(ctx)
	if err != nil {
		return t, err
	}
	v, err := b.look(ctx)
	if err != nil {
		return t, err
	}
	revision := v.GetRevision()
	t.hogs = hogsPerCPU * runtime.NumCPU()
	release, err := startHogs(ctx, t.hogs)
	if err != nil {
		return t, err
	}
	defer release()
	cpu, err := readCPU()
	if err != nil {
		return t, err
	}
	b.meter.mark()
	told := time.Now()
	for began := time.Now(); time.Since(began) < r.options.Duration && load.failure() == nil; {
		if !sleep(ctx, busyLook) {
			return t, ctx.Err()
		}
		newRevision, newTerm, err := b.changes(ctx)
		if err != nil {
			t.events = append(t.events, fmt.Sprintf("after %v: %v", time.Since(began).Round(time.Second), err))
			continue
		}
		if newRevision != revision || newTerm != term {
			event := fmt.Sprintf("after %v: revision %d to %d, term %d to %d",
				time.Since(began).Round(time.Second), revision, newRevision, term, newTerm)
			r.say("%s", event)
			t.events = append(t.events, event)
			t.changes, t.elections = t.changes+newRevision-revision, t.elections+newTerm-term
			revision, term = newRevision, newTerm
		}
		if time.Since(told) > busyProgress {
			told = time.Now()
			r.say("busy for %v: %d elections, %d changes", time.Since(began).Round(time.Second), t.elections, t.changes)
		}
	}
	t.pause = b.meter.pause()
	now, err := readCPU()
	t.idle = now.idleSince(cpu)
	return t, err
}

// changes are the revision of the volume and the term of the Raft group.
func (b *bed) changes(ctx context.Context) (revision, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	v, err := b.look(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range b.cluster.Nodes {
		info, err := n.Cluster().GetCluster(ctx, &holdfastv1.GetClusterRequest{})
		if err != nil {
			return 0, 0, fmt.Errorf("look at cluster: %w", err)
		}
		term = max(term, info.GetRaftTerm())
	}
	return v.GetRevision(), term, nil
}

// hogArgument makes this program a hog.
const hogArgument = "hog"

// hog uses one CPU for ever.
func hog() {
	runtime.GOMAXPROCS(1)
	for n := uint64(0); ; n++ {
		_ = n
	}
}

// startHogs starts that many processes that use CPU until release is called. They
// have the priority that everybody has.
func startHogs(ctx context.Context, count int) (release func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	release = func() {
		cancel()
		running.Wait()
	}
	for range count {
		cmd := exec.CommandContext(ctx, self, hogArgument)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			release()
			return nil, fmt.Errorf("start a process that uses CPU: %w", err)
		}
		running.Go(func() { _ = cmd.Wait() }) // it ends by being killed
	}
	return release, nil
}
