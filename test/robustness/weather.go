package robustness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// weathers are the kinds of trouble that want a kernel of one's own, and so a guest:
// netem, and a wall clock to be turned. Each is made once, in this order.
var weathers = []fault{
	{name: "delay", run: weather("50 ms of delay", "delay 50ms 20ms", nil)},
	{name: "loss", run: weather("5 % loss and a killed replica", "delay 2ms loss 5%", (*round).killReplica)},
	{name: "storm", run: weather("20 % loss", "delay 2ms loss 20%", nil)},
	{name: "disorder", run: weather("reordering and duplicates", "delay 10ms 5ms reorder 25% 50% duplicate 5%", nil)},
	{name: "forward", run: turnClock("clock an hour forward", time.Hour)},
	{name: "back", run: turnClock("clock an hour back", -time.Hour)},
	{name: "frozen", run: (*round).freezeInThePast},
	{name: "steps", run: turnClock("clock in steps", 3*time.Second, -7*time.Second, 90*time.Second, -24*time.Hour, 5*time.Second, -time.Second)},
}

// weatherHold is how long each kind of weather lasts.
const weatherHold = 10 * time.Second

// weather is netem on the way out of every node, with something more beside it.
func weather(kind, netem string, beside func(*round, context.Context) error) func(*round, context.Context) error {
	return func(r *round, ctx context.Context) error {
		_, term, err := r.stage.leader(ctx)
		if err != nil {
			return err
		}
		err = r.suffer(ctx, trouble{
			kind: kind, what: netem, hold: weatherHold,
			inject: func(ctx context.Context) error {
				err := r.stage.network.Weather(ctx, netem)
				if err == nil && beside != nil {
					err = beside(r, ctx)
				}
				return err
			},
			mend: func(ctx context.Context) error { return r.stage.network.Weather(ctx, "") },
		})
		if err != nil {
			return err
		}
		_, after, err := r.stage.leader(ctx)
		r.table.count("elections with "+kind, after-term)
		return err
	}
}

// killReplica kills a replica and starts it again after a moment.
func (r *round) killReplica(ctx context.Context) error {
	others := r.holdersBut(r.stage.home)
	n := r.stage.node(others[r.draw.IntN(len(others))])
	err := n.Kill()
	pause(ctx, time.Second)
	return errors.Join(err, n.Start(ctx))
}

var (
	// errRemoved: a replica was taken for dead for no reason.
	errRemoved = errors.New("view changed without a reason")
	// errElected: so was a leader.
	errElected = errors.New("leader changed without a reason")
)

// turnClock turns the wall clock by each of the steps, and then by what makes it
// right again. Leases and deadlines run on a clock that nobody turns (rule 7), so
// nothing may follow: no removal and no election. A machine that stands still for
// so long that the one or the other is no wonder is tried again, and in the end not
// judged.
func turnClock(kind string, steps ...time.Duration) func(*round, context.Context) error {
	return func(r *round, ctx context.Context) error {
		const attempts = 4
		for attempt := 1; ; attempt++ {
			stalled, err := r.turnClockOnce(ctx, kind, steps)
			excused := errors.Is(err, errElected) && stalled > electingStall || errors.Is(err, errRemoved) && stalled > removingStall
			if !excused {
				return err
			}
			r.say("%v, but the machine stood still for %v", err, stalled)
			if attempt == attempts {
				r.table.count(countUnjudged, 1)
				return nil
			}
		}
	}
}

func (r *round) turnClockOnce(ctx context.Context, kind string, steps []time.Duration) (stalled time.Duration, err error) {
	if err := r.stage.inSync(ctx); err != nil {
		return 0, err
	}
	revision, term, err := r.stage.changes(ctx)
	if err != nil {
		return 0, err
	}
	const between, hold = 300 * time.Millisecond, 2 * time.Second
	turned := time.Duration(0)
	watching := watchStalls()
	err = r.suffer(ctx, trouble{
		kind: kind, what: fmt.Sprint(steps), hold: hold,
		inject: func(ctx context.Context) error {
			for _, by := range steps {
				if err := turnWallClock(by); err != nil {
					return err
				}
				turned += by
				pause(ctx, between)
			}
			return nil
		},
		mend: func(context.Context) error { return turnWallClock(-turned) },
	})
	stalled = watching()
	if err != nil {
		return stalled, err
	}
	newRevision, newTerm, err := r.stage.changes(ctx)
	switch {
	case err != nil:
	case newRevision != revision:
		err = fmt.Errorf("revision %d became %d: %w", revision, newRevision, errRemoved)
	case newTerm != term:
		err = fmt.Errorf("term %d became %d: %w", term, newTerm, errElected)
	}
	return stalled, err
}

// How long a machine may stand still without anybody being missed for it: well
// below what a Raft leader may be silent for, and what a replica may.
const (
	electingStall = 200 * time.Millisecond
	removingStall = time.Second
)

// watchStalls measures, until the returned function is called, by how much the
// machine was late at most to wake somebody up.
func watchStalls() (longest func() time.Duration) {
	done, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		const every = 10 * time.Millisecond
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		longest, last := time.Duration(0), time.Now()
		for {
			select {
			case <-ticker.C:
				longest = max(longest, time.Since(last)-every)
				last = time.Now()
			case <-done:
				result <- longest
				return
			}
		}
	}()
	return func() time.Duration {
		close(done)
		return <-result
	}
}

// freezeInThePast turns the clock back by an hour and freezes a replica. It must be
// missed as soon as ever, though by the wall clock it answered a moment ago, and
// will have for an hour.
func (r *round) freezeInThePast(ctx context.Context) error {
	leader, _, err := r.stage.leader(ctx)
	if err != nil {
		return err
	}
	n := r.stage.node(r.holdersBut(r.stage.home, leader)[0])
	const hold, pauseMax = 15 * time.Second, 10 * time.Second
	return r.suffer(ctx, trouble{
		kind: "clock an hour back, freeze", what: n.Name, hold: hold, pauseMax: pauseMax,
		inject: func(ctx context.Context) error {
			err := turnWallClock(-time.Hour)
			pause(ctx, time.Second)
			return errors.Join(err, n.Freeze())
		},
		mend: func(context.Context) error { return errors.Join(n.Thaw(), turnWallClock(time.Hour)) },
	})
}

// turnWallClock sets the clock of the whole machine.
func turnWallClock(by time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	then := unix.NsecToTimespec(now.Nano() + int64(by))
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &then); err != nil {
		return fmt.Errorf("turn the clock by %v: %w", by, err)
	}
	return nil
}
