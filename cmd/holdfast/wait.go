package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// pollInterval is how often a volume is looked at while waiting for it.
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
			ctx := cmd.Context()
			if cmd.Flags().Changed("timeout") {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, a.timeout)
				defer cancel()
			}
			return a.withoutDeadline(ctx, func(ctx context.Context, s *session) error {
				return a.waitInSync(ctx, s, args[0])
			})
		},
	}
}

// waitInSync looks at a volume until all its replicas are in sync.
func (a *app) waitInSync(ctx context.Context, s *session, name string) error {
	bar := newProgress(a.stderr, "resync of "+name)
	defer bar.end()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	// last is what was seen last, for the error when the time is over.
	last := "the volume was not seen"
	for {
		volume, err := s.findVolume(ctx, name)
		switch {
		case err != nil && code(err) == codes.DeadlineExceeded:
			return fmt.Errorf("%s: %w", last, context.DeadlineExceeded)
		case err != nil:
			return err
		}
		view := newVolumeView(volume, nodes)
		if view.Health == "healthy" {
			bar.end()
			return a.print(view, sentence(fmt.Sprintf("Volume %s has %d of %d replicas in sync.", view.Name, view.InSync, view.Replicas)))
		}
		remaining, copied := resyncOf(volume.GetEngine())
		bar.show(copied, copied+remaining, fmt.Sprintf("%d of %d in sync", view.InSync, view.Replicas))
		last = fmt.Sprintf("volume %s is %s, %d of %d replicas in sync", view.Name, view.Health, view.InSync, view.Replicas)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", last, ctx.Err())
		case <-ticker.C:
		}
	}
}

// resyncOf sums up the resyncs of an engine, in bytes.
func resyncOf(engine *holdfastv1.EngineStatus) (remaining, copied int64) {
	for _, r := range engine.GetResyncs() {
		remaining += r.GetRemainingBytes()
		copied += r.GetCopiedBytes()
	}
	return remaining, copied
}
