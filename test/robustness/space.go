package robustness

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/replica/store"
)

// fillOne writes more than the tight disk holds, and trims that again.
func (r *round) fillOne(ctx context.Context) error {
	spare := r.load.layout.spare
	r.fillers++
	client := firstFiller + r.fillers
	return r.suffer(ctx, trouble{
		kind: "fill one disk", what: r.stage.node(r.stage.holders[0]).Name, hold: r.between(0, 2*time.Second),
		inject: func(ctx context.Context) error { return r.load.fill(ctx, spare, client) },
		mend:   func(ctx context.Context) error { return r.load.clear(ctx, spare, client) },
	})
}

// fillAll writes more than any disk holds: those writes wait until there is room.
func (r *round) fillAll(ctx context.Context) error {
	layout := r.load.layout
	r.fillers++
	client := firstFiller + r.fillers
	filling, give := context.WithCancel(ctx)
	defer give()
	var filler sync.WaitGroup
	defer filler.Wait()
	return r.suffer(ctx, trouble{
		kind: "fill all disks", what: "every replica", hold: r.between(2*time.Second, 5*time.Second),
		inject: func(ctx context.Context) error {
			if err := r.load.fill(ctx, layout.spare, client); err != nil {
				return err
			}
			r.fillers++
			more := firstFiller + r.fillers
			filler.Go(func() { _ = r.load.fill(filling, layout.more, more) }) // what it is answered is in the history
			return nil
		},
		mend: func(ctx context.Context) error {
			if err := r.load.clear(ctx, layout.spare, client); err != nil {
				return err
			}
			// What was waiting may fill the rest, so that is cleared when it is done.
			give()
			filler.Wait()
			return r.load.clear(ctx, layout.more, client)
		},
	})
}

// noSpace takes even what a store keeps for its metadata, and restarts the daemon
// once there is room.
func (r *round) noSpace(ctx context.Context) error {
	node := r.stage.holders[r.draw.IntN(len(r.stage.holders))]
	roles, err := r.roles(ctx, node)
	if err != nil {
		return err
	}
	n, d := r.stage.node(node), r.stage.disks[node]
	return r.suffer(ctx, trouble{
		kind: "no space left " + roles, what: n.Name, hold: r.between(2*time.Second, 4*time.Second),
		inject: func(context.Context) error { return d.Leave(0) },
		mend: func(ctx context.Context) error {
			if err := d.Leave(store.DefaultReserve); err != nil {
				return err
			}
			if err := n.Kill(); err != nil {
				return err
			}
			return n.Start(ctx)
		},
	})
}
