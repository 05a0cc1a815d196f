package robustness

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// busy keeps all CPUs busy with something else. Nobody may be taken for dead for
// that: every removal and every election is a false one, and counted.
func (r *round) busy(ctx context.Context) error {
	if err := r.stage.inSync(ctx); err != nil {
		return err
	}
	revision, term, err := r.stage.changes(ctx)
	if err != nil {
		return err
	}
	var burning sync.WaitGroup
	defer burning.Wait()
	burn, stop := context.WithCancel(ctx)
	defer stop()
	const perCPU = 2
	for range perCPU * runtime.NumCPU() {
		burning.Go(func() {
			cmd := exec.CommandContext(burn, "sh", "-c", "while :; do :; done")
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			_ = cmd.Run() // it ends by being killed
		})
	}
	err = r.suffer(ctx, trouble{
		kind: "busy CPUs", what: fmt.Sprintf("%d processes per CPU", perCPU), hold: r.between(5*time.Second, 10*time.Second),
		inject: func(context.Context) error { return nil },
		mend: func(context.Context) error {
			stop()
			burning.Wait()
			return nil
		},
	})
	if err != nil {
		return err
	}
	newRevision, newTerm, err := r.stage.changes(ctx)
	if err != nil {
		return err
	}
	r.table.count(countRemovals, newRevision-revision)
	r.table.count(countElections, newTerm-term)
	return nil
}
