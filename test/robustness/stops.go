package robustness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

func (r *round) kill(v victim) trouble {
	hold := r.between(0, 4*time.Second)
	if strings.HasPrefix(v.roles, "engine") {
		hold = 0 // nothing can go on before it is back
	}
	n := r.stage.node(v.node)
	return trouble{
		kind: "kill " + v.roles, what: n.Name, node: v.node, hold: hold,
		inject: func(context.Context) error { return n.Kill() },
		mend:   n.Start,
	}
}

func (r *round) restart(v victim) trouble {
	n := r.stage.node(v.node)
	return trouble{
		kind: "restart " + v.roles, what: n.Name, node: v.node,
		inject: n.Stop,
		mend:   n.Start,
	}
}

func (r *round) freeze(v victim) trouble {
	n := r.stage.node(v.node)
	return trouble{
		kind: "freeze " + v.roles, what: n.Name, node: v.node, hold: r.between(500*time.Millisecond, 9*time.Second),
		inject: func(context.Context) error { return n.Freeze() },
		mend:   func(context.Context) error { return n.Thaw() },
	}
}

func (r *round) killAll(ctx context.Context) error {
	return r.suffer(ctx, trouble{
		kind: "kill all", what: "every daemon", hold: r.between(0, time.Second),
		inject: func(context.Context) error {
			var errs []error
			for _, i := range r.draw.Perm(len(r.stage.cluster.Nodes)) {
				errs = append(errs, r.stage.node(i).Kill())
			}
			return errors.Join(errs...)
		},
		mend: r.stage.startAll,
	})
}

// killTwo kills two nodes, one after the other: with three nodes a majority is
// gone, and with luck all but one replica.
func (r *round) killTwo(ctx context.Context) error {
	order := r.draw.Perm(len(r.stage.cluster.Nodes))
	a, b := r.stage.node(order[0]), r.stage.node(order[1])
	apart := r.between(0, 3*time.Second)
	return r.suffer(ctx, trouble{
		kind: "kill two", what: a.Name + " and then " + b.Name, hold: r.between(0, 3*time.Second),
		inject: func(ctx context.Context) error {
			err := a.Kill()
			pause(ctx, apart)
			return errors.Join(err, b.Kill())
		},
		mend: r.stage.startAll,
	})
}

// chase kills the leader and starts it again at once, and then its successor, so
// that each election is followed by the next one while there always is a majority.
func (r *round) chase(ctx context.Context) error {
	const leaders = 3
	return r.suffer(ctx, trouble{
		kind: "chase the leader", what: fmt.Sprintf("%d leaders in a row", leaders),
		inject: func(ctx context.Context) error {
			after := uint64(0)
			for range leaders {
				leader, term, err := r.stage.leaderAfter(ctx, after)
				if err != nil {
					return err
				}
				after = term
				n := r.stage.node(leader)
				if err := errors.Join(n.Kill(), n.Start(ctx)); err != nil {
					return err
				}
			}
			return nil
		},
		mend: func(context.Context) error { return nil },
	})
}
