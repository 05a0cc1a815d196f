package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// pollInterval is how often something is looked at while it is waited for.
const pollInterval = 500 * time.Millisecond

func (a *app) volumeWaitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait NAME",
		Short: "Wait until a volume has all its copies again",
		Long: `Wait until every replica of a volume is in sync. On a terminal, a bar shows how
much is left, at which rate it goes, and how long it will take. Without
--timeout it waits as long as it takes.`,
		Example: `  holdfast volume wait db
  holdfast volume wait db --timeout 10m || echo "still degraded"`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.patiently(cmd, func(ctx context.Context, s *session) error {
				return a.waitInSync(ctx, s, args[0])
			})
		},
	}
}

// waitInSync waits until all replicas of a volume are in sync.
func (a *app) waitInSync(ctx context.Context, s *session, name string) error {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	var view volumeView
	err = a.watch(ctx, "resync of "+name, func(ctx context.Context) (sight, error) {
		volume, err := s.findVolume(ctx, name)
		if err != nil {
			return sight{}, err
		}
		view = newVolumeView(volume, nodes)
		remaining, copied := resyncOf(volume.GetEngine())
		return sight{
			over: view.Health == "healthy", done: copied, total: copied + remaining,
			note: fmt.Sprintf("%d of %d in sync", view.InSync, view.Replicas),
			says: fmt.Sprintf("volume %s is %s, %d of %d replicas in sync", view.Name, view.Health, view.InSync, view.Replicas),
		}, nil
	})
	if err != nil {
		return err
	}
	return a.print(view, sentence(fmt.Sprintf("Volume %s has %d of %d replicas in sync.", view.Name, view.InSync, view.Replicas)))
}

// resyncOf sums up the resyncs of an engine, in bytes.
func resyncOf(engine *holdfastv1.EngineStatus) (remaining, copied int64) {
	for _, r := range engine.GetResyncs() {
		remaining += r.GetRemainingBytes()
		copied += r.GetCopiedBytes()
	}
	return remaining, copied
}

// sight is how far something was when it was looked at.
type sight struct {
	// over: there is nothing more to wait for.
	over bool
	// done of total bytes, and a note, are for the bar.
	done, total int64
	note        string
	// says is for the error, if this was the last look before the time was over.
	says string
}

// watch looks at something until it is over, and shows how far it is meanwhile. A daemon
// that does not answer, because it is being restarted or the cluster has no leader, is
// asked again for as long as anybody waits for an answer, once something was seen.
func (a *app) watch(ctx context.Context, label string, look func(ctx context.Context) (sight, error)) error {
	bar := newProgress(a.stderr, label)
	defer bar.end()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var last sight
	var seen time.Time
	for {
		asking, cancel := context.WithTimeout(ctx, a.timeout)
		now, err := look(asking)
		cancel()
		switch {
		case err == nil && now.over:
			return nil
		case err == nil:
			last, seen = now, time.Now()
		case last.says == "":
			return err
		case code(err) == codes.DeadlineExceeded:
			return fmt.Errorf("%s: %w", last.says, context.DeadlineExceeded)
		case code(err) != codes.Unavailable:
			return err
		case time.Since(seen) >= a.timeout:
			return fmt.Errorf("%s: %w", last.says, err)
		default:
			last.note = "no answer"
		}
		bar.show(last.done, last.total, last.note)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", last.says, ctx.Err())
		case <-ticker.C:
		}
	}
}
