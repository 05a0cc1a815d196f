package robustness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

// fault is a kind of trouble. run brings it about, waits, and mends it.
type fault struct {
	name   string
	weight int
	run    func(*round, context.Context) error
}

// faults are all kinds. The weights say how often each is drawn.
var faults = []fault{
	{"kill", 5, alone((*round).kill)},
	{"restart", 3, alone((*round).restart)},
	{"freeze", 4, alone((*round).freeze)},
	{"vanish", 4, alone((*round).vanish)},
	{"one way", 3, alone((*round).oneWay)},
	{"split", 3, alone((*round).split)},
	{"two at once", 5, (*round).twoAtOnce},
	{"kill all", 2, (*round).killAll},
	{"kill two", 2, (*round).killTwo},
	{"fill", 2, (*round).fillOne},
	{"fill all", 1, (*round).fillAll},
	{"no space", 1, (*round).noSpace},
	{"busy", 2, (*round).busy},
	{"move", 2, (*round).move},
	{"move by force", 3, (*round).moveByForce},
}

// chooseFaults are those whose names are given, separated by commas; all for none.
func chooseFaults(names string) ([]fault, error) {
	if names == "" {
		return faults, nil
	}
	var chosen []fault
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("fault %q: %w", name, block.ErrNotFound)
		}
		chosen = append(chosen, faults[i])
	}
	return chosen, nil
}

// The clients of a history that are not the writers of the load.
const (
	finalReader = writers + iota
	staleReader
	firstFiller
)

// roles says what a node is to the volume and to the cluster, for a table.
func (r *round) roles(ctx context.Context, node int) (string, error) {
	leader, _, err := r.stage.leader(ctx)
	if err != nil {
		return "", err
	}
	var all []string
	if node == r.stage.home {
		all = append(all, "engine")
	}
	if slices.Contains(r.stage.holders, node) {
		all = append(all, "replica")
	}
	if node == leader {
		all = append(all, "leader")
	}
	if len(all) == 0 {
		return "bystander", nil
	}
	return strings.Join(all, "+"), nil
}

// victim draws a node. The leader is drawn more often than others.
func (r *round) victim(ctx context.Context) (node int, roles string, err error) {
	node = r.draw.IntN(len(r.stage.cluster.Nodes))
	if r.draw.IntN(3) == 0 {
		if node, _, err = r.stage.leader(ctx); err != nil {
			return 0, "", err
		}
	}
	roles, err = r.roles(ctx, node)
	return node, roles, err
}

// between draws a time.
func (r *round) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.draw.Int64N(int64(most-least)))
}

// trouble is the common part of most faults.
type trouble struct {
	kind, what string
	// node is whom it hits.
	node int
	// hold is how long it lasts.
	hold time.Duration
	// inject brings it about, mend ends it.
	inject, mend func(context.Context) error
}

func (r *round) suffer(ctx context.Context, t trouble) error {
	at := r.say("%s: %s for %.1f s", t.kind, t.what, t.hold.Seconds())
	if err := t.inject(ctx); err != nil {
		return err
	}
	pause(ctx, t.hold)
	mended := r.load.history.now()
	if err := t.mend(ctx); err != nil {
		return err
	}
	return r.recover(ctx, t.kind, at, mended)
}

// alone makes a fault of trouble that hits one node.
func alone(plan func(*round, context.Context) (trouble, error)) func(*round, context.Context) error {
	return func(r *round, ctx context.Context) error {
		t, err := plan(r, ctx)
		if err != nil {
			return err
		}
		return r.suffer(ctx, t)
	}
}

// twoAtOnce lets two nodes suffer, each in its own way, and ends both together.
func (r *round) twoAtOnce(ctx context.Context) error {
	plans := []func(*round, context.Context) (trouble, error){
		(*round).kill, (*round).freeze, (*round).vanish, (*round).oneWay, (*round).split,
	}
	first, err := plans[r.draw.IntN(len(plans))](r, ctx)
	if err != nil {
		return err
	}
	second := first
	for second.node == first.node {
		if second, err = plans[r.draw.IntN(len(plans))](r, ctx); err != nil {
			return err
		}
	}
	apart := r.between(0, 3*time.Second)
	return r.suffer(ctx, trouble{
		kind: "two at once",
		what: fmt.Sprintf("%s %s and %.1f s later %s %s", first.kind, first.what, apart.Seconds(), second.kind, second.what),
		hold: r.between(0, 6*time.Second),
		inject: func(ctx context.Context) error {
			if err := first.inject(ctx); err != nil {
				return err
			}
			pause(ctx, apart)
			return second.inject(ctx)
		},
		mend: r.stage.heal,
	})
}

func (r *round) kill(ctx context.Context) (trouble, error) {
	node, roles, err := r.victim(ctx)
	if err != nil {
		return trouble{}, err
	}
	hold := r.between(0, 4*time.Second)
	if strings.HasPrefix(roles, "engine") {
		hold = 0 // nothing can go on before it is back
	}
	n := r.stage.node(node)
	return trouble{
		kind: "kill " + roles, what: n.Name, node: node, hold: hold,
		inject: func(context.Context) error { return n.Kill() },
		mend:   n.Start,
	}, nil
}

func (r *round) restart(ctx context.Context) (trouble, error) {
	node, roles, err := r.victim(ctx)
	if err != nil {
		return trouble{}, err
	}
	n := r.stage.node(node)
	return trouble{
		kind: "restart " + roles, what: n.Name, node: node,
		inject: n.Stop,
		mend:   n.Start,
	}, nil
}

func (r *round) freeze(ctx context.Context) (trouble, error) {
	node, roles, err := r.victim(ctx)
	if err != nil {
		return trouble{}, err
	}
	n := r.stage.node(node)
	return trouble{
		kind: "freeze " + roles, what: n.Name, node: node, hold: r.between(500*time.Millisecond, 9*time.Second),
		inject: func(context.Context) error { return n.Freeze() },
		mend:   func(context.Context) error { return n.Thaw() },
	}, nil
}

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
func (r *round) vanish(ctx context.Context) (trouble, error) {
	node, roles, err := r.victim(ctx)
	if err != nil {
		return trouble{}, err
	}
	return trouble{
		kind: "vanish " + roles, what: r.stage.node(node).Name, node: node, hold: r.between(2*time.Second, 9*time.Second),
		inject: func(ctx context.Context) error { return r.links(ctx, []int{node}, r.everybody(), true) },
		mend:   r.stage.network.Heal,
	}, nil
}

// oneWay cuts one direction: the node hears nothing, or is not heard.
func (r *round) oneWay(ctx context.Context) (trouble, error) {
	node, roles, err := r.victim(ctx)
	if err != nil {
		return trouble{}, err
	}
	kind, from, to := "deaf ", r.everybody(), []int{node}
	if r.draw.IntN(2) == 0 {
		kind, from, to = "mute ", to, from
	}
	return trouble{
		kind: kind + roles, what: r.stage.node(node).Name, node: node, hold: r.between(2*time.Second, 9*time.Second),
		inject: func(ctx context.Context) error { return r.links(ctx, from, to, false) },
		mend:   r.stage.network.Heal,
	}, nil
}

// split cuts the link between the engine and one replica: both see everybody else.
func (r *round) split(context.Context) (trouble, error) {
	others := slices.DeleteFunc(slices.Clone(r.stage.holders), func(i int) bool { return i == r.stage.home })
	other := others[r.draw.IntN(len(others))]
	both := r.draw.IntN(2) == 0
	what := fmt.Sprintf("%s to %s", r.stage.node(other).Name, r.stage.node(r.stage.home).Name)
	if both {
		what += " and back"
	}
	return trouble{
		kind: "split engine and replica", what: what, node: other, hold: r.between(2*time.Second, 9*time.Second),
		inject: func(ctx context.Context) error { return r.links(ctx, []int{other}, []int{r.stage.home}, both) },
		mend:   r.stage.network.Heal,
	}, nil
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
		inject: func(context.Context) error { return d.leave(0) },
		mend: func(ctx context.Context) error {
			if err := d.leave(store.DefaultReserve); err != nil {
				return err
			}
			if err := n.Kill(); err != nil {
				return err
			}
			return n.Start(ctx)
		},
	})
}

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
	r.table.count("changes of the in-sync set while CPUs were busy", newRevision-revision)
	r.table.count("elections while CPUs were busy", newTerm-term)
	return nil
}

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

// moveByForce takes the volume from a node that died, froze or vanished, and lets
// that node come back while the volume is used elsewhere.
func (r *round) moveByForce(ctx context.Context) error {
	from, to := r.stage.home, r.elsewhere()
	n := r.stage.node(from)
	how := []struct {
		name         string
		inject, mend func(context.Context) error
	}{
		{"died", func(context.Context) error { return n.Kill() }, n.Start},
		{"froze", func(context.Context) error { return n.Freeze() }, func(context.Context) error { return n.Thaw() }},
		{
			"vanished", func(ctx context.Context) error { return r.links(ctx, []int{from}, r.everybody(), true) },
			r.stage.network.Heal,
		},
	}[r.draw.IntN(3)]
	wait := time.Duration(0)
	if r.draw.IntN(2) == 0 {
		wait = r.between(time.Second, 8*time.Second)
	}
	r.say("move by force: %s %s, to %s after %.1f s", n.Name, how.name, r.stage.node(to).Name, wait.Seconds())
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
	detached := r.load.history.now()
	dial, err := r.stage.attach(ctx, to)
	if err != nil {
		return err
	}
	r.load.use(dial)
	if err := r.flows(ctx); err != nil {
		return err
	}
	r.table.add("detach after "+roleless(how.name), sample{during: time.Duration(detached - asked)})
	r.table.add("attach after "+roleless(how.name), sample{during: r.load.history.pause(detached, detached)})
	// The old engine, if it lives, must not tell anybody what was true once.
	stop := r.readStale(ctx, oldDial)
	pause(ctx, r.between(0, 3*time.Second))
	mended := r.load.history.now()
	err = how.mend(ctx)
	pause(ctx, r.between(0, time.Second))
	stop()
	if err != nil {
		return err
	}
	return r.recover(ctx, "move by force", asked, mended)
}

func roleless(how string) string { return "its node " + how }

// readStale reads at the volume's old place until stop is called.
func (r *round) readStale(ctx context.Context, dial func(context.Context) (net.Conn, error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	reader.Go(func() {
		for ctx.Err() == nil {
			r.readStaleOnce(ctx, dial)
			pause(ctx, reconnectPause)
		}
	})
	return func() {
		cancel()
		reader.Wait()
	}
}

func (r *round) readStaleOnce(ctx context.Context, dial func(context.Context) (net.Conn, error)) {
	bounded, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	socket, err := dial(bounded)
	if err != nil {
		return
	}
	client, err := nbd.Connect(bounded, socket, nbd.ClientConfig{})
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { _ = client.Close() })()
	defer func() { _ = client.Close() }() // nobody asks how it ends
	buf := make([]byte, block.BlockSize)
	for i := 0; ctx.Err() == nil; i++ {
		at := int64(i%clusters) * clusterStep
		o := r.load.history.begin(op{client: staleReader, kind: nbd.KindRead, span: block.Span{Offset: at, Length: int64(len(buf))}})
		if _, err := client.ReadAt(buf, at); err != nil {
			return
		}
		values, err := stamp.Read(buf, at)
		if err != nil {
			r.load.broken(err)
			return
		}
		r.load.history.answer(o, values, nil)
		r.stale.Add(1)
	}
}

// describe is what the engine says of itself, for who wonders why nothing moves.
func (r *round) describe(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var lines []string
	for _, n := range r.stage.cluster.Nodes {
		status, err := n.Agent().GetEngine(ctx, &holdfastv1.GetEngineRequest{VolumeId: r.stage.volume})
		if err == nil {
			lines = append(lines, fmt.Sprintf("%s: %v", n.Name, status))
		}
	}
	return strings.Join(lines, "\n")
}
