package robustness

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// links cuts those from one set of nodes to another, and back if both is set.
func (r *round) links(ctx context.Context, from, to []int, both bool) error {
	for _, a := range from {
		for _, b := range to {
			if a == b {
				continue
			}
			if err := r.stage.network.Cut(ctx, a, b); err != nil {
				return err
			}
			if both {
				if err := r.stage.network.Cut(ctx, b, a); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *round) everybody() []int {
	var all []int
	for i := range r.stage.cluster.Nodes {
		all = append(all, i)
	}
	return all
}

// vanish cuts a node off in both directions: it falls silent without a reset.
func (r *round) vanish(v victim) trouble {
	return trouble{
		kind: "vanish " + v.roles, what: r.stage.node(v.node).Name, node: v.node, hold: r.between(2*time.Second, 9*time.Second),
		inject: func(ctx context.Context) error { return r.links(ctx, []int{v.node}, r.everybody(), true) },
		mend:   r.stage.network.Heal,
	}
}

// part parts the nodes into two sides that do not hear each other. A majority of
// the Raft group may be with the engine or not.
func (r *round) part(ctx context.Context) error {
	order := r.draw.Perm(len(r.stage.cluster.Nodes))
	some := 1 + r.draw.IntN(len(order)-1)
	return r.suffer(ctx, trouble{
		kind: "part", what: fmt.Sprintf("%v from %v", names(order[:some]), names(order[some:])),
		hold:   r.between(2*time.Second, 9*time.Second),
		inject: func(ctx context.Context) error { return r.links(ctx, order[:some], order[some:], true) },
		mend:   r.stage.network.Heal,
	})
}

// oneWay cuts one direction: the node hears nothing, or is not heard.
func (r *round) oneWay(v victim) trouble {
	kind, from, to := "deaf ", r.everybody(), []int{v.node}
	if r.draw.IntN(2) == 0 {
		kind, from, to = "mute ", to, from
	}
	return trouble{
		kind: kind + v.roles, what: r.stage.node(v.node).Name, node: v.node, hold: r.between(2*time.Second, 9*time.Second),
		inject: func(ctx context.Context) error { return r.links(ctx, from, to, false) },
		mend:   r.stage.network.Heal,
	}
}

// splitReplica draws the replica for split.
func (r *round) splitReplica(ctx context.Context) error {
	others := r.holdersBut(r.stage.home)
	v, err := r.victimOf(ctx, others[r.draw.IntN(len(others))])
	if err != nil {
		return err
	}
	return r.suffer(ctx, r.split(v))
}

// split cuts the link between the engine and one replica: both see everybody else.
func (r *round) split(v victim) trouble {
	others := r.holdersBut(r.stage.home)
	if !slices.Contains(others, v.node) {
		v = victim{node: others[r.draw.IntN(len(others))], roles: "another"}
	}
	both := r.draw.IntN(2) == 0
	what := fmt.Sprintf("%s to %s", r.stage.node(v.node).Name, r.stage.node(r.stage.home).Name)
	if both {
		what += " and back"
	}
	return trouble{
		kind: "split engine and " + v.roles, what: what, node: v.node, hold: r.between(2*time.Second, 9*time.Second),
		inject: func(ctx context.Context) error { return r.links(ctx, []int{v.node}, []int{r.stage.home}, both) },
		mend:   r.stage.network.Heal,
	}
}

// holdersBut are the nodes with a replica, without some.
func (r *round) holdersBut(without ...int) []int {
	return slices.DeleteFunc(slices.Clone(r.stage.holders), func(i int) bool { return slices.Contains(without, i) })
}

const (
	// leaderCut is how long the link between the engine and the leader stays cut:
	// well above leaderCutPause, within which writes must flow all the same.
	leaderCut      = 12 * time.Second
	leaderCutPause = 8 * time.Second
)

// splitLeader cuts the link between the engine's node and the leader of the Raft
// group, in one direction or in both, while both reach all others. The cluster has
// a healthy leader that the engine does not reach: the view must change all the
// same, because a replica is lost with the link, or freezes beside it.
func (r *round) splitLeader(ctx context.Context) error {
	leader, _, err := r.stage.leader(ctx)
	if err != nil {
		return err
	}
	if leader == r.stage.home {
		if err := r.move(ctx); err != nil {
			return err
		}
	}
	// A replica that is frozen below must not be the last one.
	if err := r.stage.inSync(ctx); err != nil {
		return err
	}
	home := r.stage.home
	kind, from, to, both := "leader to engine", leader, home, false
	switch r.draw.IntN(3) {
	case 0:
		kind, from, to = "engine to leader", home, leader
	case 1:
		kind, both = "leader and engine", true
	}
	what := fmt.Sprintf("%s to %s", r.stage.node(from).Name, r.stage.node(to).Name)
	frozen, err := r.spareReplica(ctx, home, leader)
	if err != nil {
		return err
	}
	if frozen >= 0 {
		what += fmt.Sprintf(", %s is frozen", r.stage.node(frozen).Name)
	}
	return r.suffer(ctx, trouble{
		kind: "split " + kind, what: what, hold: leaderCut, pauseMax: leaderCutPause,
		inject: func(ctx context.Context) error {
			if err := r.links(ctx, []int{from}, []int{to}, both); err != nil || frozen < 0 {
				return err
			}
			return r.stage.node(frozen).Freeze()
		},
		mend: r.stage.heal,
	})
}

// spareReplica is a node with a replica that the leader, cut off from the engine's
// node, can spare: it keeps a majority without both. There is none (-1) if the
// leader's own replica is lost to the engine with the link.
func (r *round) spareReplica(ctx context.Context, home, leader int) (int, error) {
	if slices.Contains(r.stage.holders, leader) {
		return -1, nil
	}
	voters, err := r.stage.voters(ctx)
	if err != nil {
		return -1, err
	}
	for _, i := range r.holdersBut(home) {
		left := slices.DeleteFunc(slices.Clone(voters), func(v int) bool { return v == home || v == i })
		if 2*len(left) > len(voters) {
			return i, nil
		}
	}
	return -1, nil
}
