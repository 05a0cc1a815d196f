package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// elsewhere draws a node other than the volume's.
func (r *round) elsewhere() int {
	to := r.draw.IntN(len(r.stage.cluster.Nodes) - 1)
	if to >= r.stage.home {
		to++
	}
	return to
}

// move takes the volume to another node in order.
func (r *round) move(ctx context.Context) error {
	to := r.elsewhere()
	at := r.say("move: %s to %s", r.stage.node(r.stage.home).Name, r.stage.node(to).Name)
	if err := r.load.hold(ctx); err != nil {
		return err
	}
	defer r.load.release()
	r.load.use(nil)
	if err := r.stage.detach(ctx); err != nil {
		return err
	}
	dial, err := r.stage.attach(ctx, to)
	if err != nil {
		return err
	}
	r.load.use(dial)
	r.load.release()
	return r.recover(ctx, "move in order", at, r.load.history.now())
}

// loss is how a node is lost that comes back later.
type loss struct {
	name         string
	nodes        []int // all that are lost
	inject, mend func(context.Context) error
}

// parted is the loss of a node that is not alone.
const parted = "parted"

// losses are those of a node, to all others or to all but one.
func (r *round) losses(node, but int) []loss {
	n, alone := r.stage.node(node), []int{node}
	all := []loss{
		{"died", alone, func(context.Context) error { return n.Kill() }, n.Start},
		{"froze", alone, func(context.Context) error { return n.Freeze() }, func(context.Context) error { return n.Thaw() }},
		{
			"vanished", alone, func(ctx context.Context) error { return r.links(ctx, []int{node}, r.everybody(), true) },
			r.stage.network.Heal,
		},
	}
	// Two replicas part from the third, which has the majority of the nodes on its
	// side: each side could think that it can spare the other.
	companions := r.holdersBut(node, but)
	if len(r.stage.cluster.Nodes) < 5 || !slices.Contains(r.stage.holders, node) {
		return all
	}
	side := []int{node, companions[r.draw.IntN(len(companions))]}
	rest := slices.DeleteFunc(r.everybody(), func(i int) bool { return slices.Contains(side, i) })
	return append(all, r.lossOfLastCopy(node), loss{
		parted, side, func(ctx context.Context) error {
			r.stage.away = side
			return r.links(ctx, side, rest, true)
		},
		func(ctx context.Context) error {
			r.stage.away = nil
			return r.stage.network.Heal(ctx)
		},
	})
}

// lossOfLastCopy is the loss of a node after those of the other replicas, which come
// back at once and lack what was written meanwhile. A majority must be left for the
// changes of the view.
func (r *round) lossOfLastCopy(node int) loss {
	n, others := r.stage.node(node), r.holdersBut(node)
	return loss{
		"was alone", []int{node},
		func(ctx context.Context) error {
			for _, i := range others {
				if err := r.stage.node(i).Kill(); err != nil {
					return err
				}
			}
			if err := r.stage.inSyncOnly(ctx, node); err != nil {
				return err
			}
			if err := n.Kill(); err != nil {
				return err
			}
			for _, i := range others {
				if err := r.stage.node(i).Start(ctx); err != nil {
					return err
				}
			}
			return nil
		},
		n.Start,
	}
}

// moveByForce takes the volume from a node that was lost, and lets that node come
// back while the volume is used elsewhere.
func (r *round) moveByForce(ctx context.Context) error {
	from, to := r.stage.home, r.elsewhere()
	n := r.stage.node(from)
	all := r.losses(from, to)
	how := all[r.draw.IntN(len(all))]
	wait := time.Duration(0)
	switch {
	case how.name == parted:
		// Long enough for the old engine to want to go on without the rest.
		wait = r.between(3*time.Second, 8*time.Second)
	case r.draw.IntN(2) == 0:
		wait = r.between(time.Second, 8*time.Second)
	}
	r.say("move by force: %s %s, to %s after %.1f s", n.Name, how.name, r.stage.node(to).Name, wait.Seconds())
	// Requests that the old engine cannot finish keep it from serving another
	// client; without any, readStale is heard there.
	if r.draw.IntN(3) == 0 {
		if err := r.load.hold(ctx); err != nil {
			return err
		}
		defer r.load.release()
	}
	if err := how.inject(ctx); err != nil {
		return err
	}
	pause(ctx, wait)
	r.load.mu.Lock()
	oldDial := r.load.dial
	r.load.mu.Unlock()
	r.load.use(nil)
	asked := r.load.history.now()
	if err := r.stage.detach(ctx); err != nil {
		return err
	}
	r.load.release()
	detached := r.load.history.now()
	mend := sync.OnceValue(func() error { return how.mend(ctx) })
	if err := r.awaitCopy(ctx, to, how.nodes, mend); err != nil {
		return err
	}
	attaching := r.load.history.now()
	dial, err := r.stage.attach(ctx, to)
	if err != nil {
		return err
	}
	r.load.use(dial)
	if err := r.flows(ctx); err != nil {
		return err
	}
	r.table.add("detach after "+roleless(how.name), sample{during: time.Duration(detached - asked)})
	r.table.add("attach after "+roleless(how.name), sample{during: r.load.history.pause(attaching, attaching)})
	// The old engine, if it lives, must not tell anybody what was true once.
	stop := r.readStale(ctx, oldDial)
	pause(ctx, r.between(0, 3*time.Second))
	mended := r.load.history.now()
	err = mend()
	pause(ctx, r.between(0, time.Second))
	stop()
	if err != nil {
		return err
	}
	return r.recover(ctx, "move by force", asked, mended)
}

// awaitCopy mends the loss of nodes that have all in-sync replicas of the detached
// volume, as an earlier fault can leave it: the others lack acknowledged writes, and
// must not serve it until then.
func (r *round) awaitCopy(ctx context.Context, to int, lost []int, mend func() error) error {
	inSync, err := r.stage.inSyncOn(ctx)
	if err != nil {
		return err
	}
	if left := slices.DeleteFunc(inSync, func(i int) bool { return slices.Contains(lost, i) }); len(left) > 0 {
		return nil
	}
	r.say("everything acknowledged is on nodes that are lost")
	asking, cancel := context.WithTimeout(ctx, r.between(time.Second, 8*time.Second))
	defer cancel()
	if _, err := r.stage.node(to).Attach(asking, r.stage.volume); err == nil {
		return fmt.Errorf("%s serves the volume without any of its in-sync replicas", r.stage.node(to).Name)
	}
	return mend()
}

func roleless(how string) string { return "its node " + how }

// restage stages and unstages the volume on its node again and again, by several
// callers at once that do not wait for each other, as a kubelet does that was
// restarted and a detacher that gave up. What they are answered must be an answer:
// done, or to be tried again.
func (r *round) restage(ctx context.Context) error {
	n := r.stage.node(r.stage.home)
	hold := r.between(time.Second, 3*time.Second)
	at := r.say("restage: on %s for %.1f s", n.Name, hold.Seconds())
	if err := r.load.hold(ctx); err != nil {
		return err
	}
	defer r.load.release()
	r.load.use(nil)
	if err := stageAtOnce(ctx, n, r.stage.volume, r.draw.Uint64(), hold); err != nil {
		return err
	}
	dial, err := r.stage.attach(ctx, r.stage.home)
	if err != nil {
		return err
	}
	r.load.use(dial)
	r.load.release()
	return r.recover(ctx, "restage", at, r.load.history.now())
}

// stageAtOnce lets some callers stage and unstage a volume at random for a while.
func stageAtOnce(ctx context.Context, n *harness.Node, volume string, seed uint64, hold time.Duration) error {
	const callers = 6
	var calling sync.WaitGroup
	defer calling.Wait()
	wrong := make(chan error, callers)
	bounded, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	for i := range callers {
		calling.Go(func() {
			draw := rand.New(rand.NewPCG(seed, uint64(i)))
			for bounded.Err() == nil {
				// Some give up early.
				asking, cancel := context.WithTimeout(ctx, time.Duration(1+draw.IntN(3000))*time.Millisecond)
				var err error
				if draw.IntN(2) == 0 {
					_, err = n.Agent().StageVolume(asking, &holdfastv1.StageVolumeRequest{VolumeId: volume})
				} else {
					_, err = n.Agent().UnstageVolume(asking, &holdfastv1.UnstageVolumeRequest{VolumeId: volume})
				}
				cancel()
				switch status.Code(err) {
				case codes.OK, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
				default:
					wrong <- fmt.Errorf("stage and unstage at once: %w", err)
					return
				}
			}
		})
	}
	calling.Wait()
	select {
	case err := <-wrong:
		return err
	default:
		return nil
	}
}
