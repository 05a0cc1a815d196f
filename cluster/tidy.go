package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// tidy sees to what nobody waits for, while this member leads. It is apart from the
// other duties, because it asks nodes that may take their time.
func (c *Cluster) tidy(ctx context.Context) {
	ticker := time.NewTicker(c.options.Timing.Watchdog)
	defer ticker.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if c.leading.Load() {
			c.purgeExpired(ctx, time.Now())
			c.finishGrowth(ctx, turn)
		}
	}
}

const (
	// growersMax bounds how many volumes are asked at a time to finish their growth.
	growersMax = 4
	// growPatience is how long each may take; what was done by then is not in vain.
	growPatience = 15 * time.Second
)

// finishGrowth has growth finished whose caller is gone: an intent once begun is only
// ever finished (rule 27), and until then the volume is neither of its sizes. Where the
// caller is still there, the two ask for the same.
func (c *Cluster) finishGrowth(ctx context.Context, turn int) {
	var growing []state.Volume
	for v := range c.State().UnsettledVolumes() {
		if v.GrowTo != 0 {
			growing = append(growing, v)
		}
	}
	inParallel(len(growing), growersMax, func(i int) { c.grow(ctx, &growing[i], turn) })
}

func (c *Cluster) grow(ctx context.Context, v *state.Volume, turn int) {
	ctx, cancel := context.WithTimeout(ctx, growPatience)
	defer cancel()
	node, err := c.worker(v, turn)
	if err == nil {
		err = c.askWorker(ctx, node, func(ctx context.Context, agent holdfastv1.NodeAgentClient) error {
			_, err := agent.GrowVolume(ctx, &holdfastv1.GrowVolumeRequest{VolumeId: v.ID.String(), SizeBytes: v.GrowTo})
			return err
		})
	}
	if err != nil {
		c.logger.Debug("growth that was begun cannot be finished yet", "volume", v.ID, "size", v.GrowTo, "error", err)
		return
	}
	c.logger.Info("growth that was begun is finished", "volume", v.ID, "size", v.GrowTo)
}

// inParallel does n things, most at a time, and waits for all.
func inParallel(n, most int, do func(i int)) {
	next := make(chan int)
	var work sync.WaitGroup
	for range min(most, n) {
		work.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	work.Wait()
}
