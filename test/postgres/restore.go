package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// errSpace: what snapshots and restored volumes took is not given back.
var errSpace = errors.New("space did not come back")

// thoroughEach is for how many snapshots one is read by pg_amcheck, which takes longer
// than all else.
const thoroughEach = 5

// checkShots restores each snapshot, checks it, and deletes everything again.
func (t *test) checkShots(ctx context.Context, shots []*shot) (string, error) {
	if err := t.settle(ctx); err != nil {
		return "", err
	}
	before, err := t.usedBytes(ctx)
	if err != nil {
		return "", err
	}
	slowest, rows, freed := time.Duration(0), 0, int64(0)
	for _, s := range shots {
		slowest = max(slowest, s.answered.Sub(s.asked))
		found, err := t.restore(ctx, s, len(shots) == 1 || t.restores%thoroughEach == 0)
		if err != nil {
			return "", fmt.Errorf("%s, of %s: %w", s.name, s.asked.Format("15:04:05.000"), err)
		}
		rows = found
		frees, err := t.deleteShot(ctx, s)
		if err != nil {
			return "", err
		}
		freed += frees
	}
	if err := t.spaceIsBack(ctx, before, freed); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d snapshots restored and checked, the last with %d transactions; the slowest took %d ms to take; %d MiB came back",
		len(shots), rows, slowest.Milliseconds(), freed>>20), nil
}

// restore makes a volume from a snapshot, lets PostgreSQL recover on one node after
// another, checks what it has then, and deletes that volume. It
// returns how many transactions were there.
func (t *test) restore(ctx context.Context, s *shot, thoroughly bool) (rows int, err error) {
	n := t.nodes()[t.restores%len(t.nodes())]
	t.restores++
	var volume string
	err = again(ctx, "restore", func(ctx context.Context) (err error) {
		volume, err = n.RestoreSnapshot(ctx, "restored-"+s.name, s.id, t.options.volumeBytes(), map[string]string{"replicas": "3"})
		return err
	})
	if err != nil {
		return 0, err
	}
	at := n.Place("-restored")
	if err := again(ctx, "mount", func(ctx context.Context) error { return n.MountAt(ctx, volume, at) }); err != nil {
		return 0, err
	}
	device, err := deviceOf(at.Path())
	if err != nil {
		return 0, err
	}
	t.devices = append(t.devices, device)
	if rows, err = t.recovered(ctx, s, at.Path(), thoroughly); err != nil {
		return rows, err
	}
	if err := again(ctx, "unmount", func(ctx context.Context) error { return n.UnmountFrom(ctx, volume, at) }); err != nil {
		return rows, err
	}
	return rows, again(ctx, "delete the restored volume", func(ctx context.Context) error {
		_, err := controller(n).DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: volume})
		return err
	})
}

// deleteShot deletes a snapshot, and returns how many bytes that was said to free once
// the volume restored from it is gone.
func (t *test) deleteShot(ctx context.Context, s *shot) (freed int64, err error) {
	n := t.nodes()[attached]
	err = harness.Wait(ctx, "the restored volume to go", func(ctx context.Context) error {
		_, err := t.usedBytes(ctx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errSpace, err)
	}
	err = again(ctx, "look at the snapshot", func(ctx context.Context) error {
		found, err := n.Snapshots().GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{Id: s.id, WithUsage: true})
		freed = found.GetUsage().GetFreedIfDeletedBytes()
		return err
	})
	if err != nil {
		return 0, err
	}
	return freed, again(ctx, "delete the snapshot", func(ctx context.Context) error {
		_, err := controller(n).DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: s.id})
		return err
	})
}

// recovered starts a PostgreSQL of its own on a restored volume, and checks it.
func (t *test) recovered(ctx context.Context, s *shot, mountPoint string, thoroughly bool) (int, error) {
	d, err := t.secondDatabase(filepath.Join(mountPoint, "data"))
	if err != nil {
		return 0, err
	}
	// It names a process of this machine, which lives: that of the first database.
	if err := os.Remove(filepath.Join(d.Data, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if err := d.Start(ctx); err != nil {
		return 0, err
	}
	rows, err := d.ledgerRows(ctx)
	if err != nil {
		return 0, err
	}
	if err := compareShot(t.runs, rows, s.asked, s.answered); err != nil {
		return len(rows), err
	}
	if _, err := d.checkSums(ctx); err != nil {
		return len(rows), err
	}
	if thoroughly {
		if _, err := d.checkStructure(ctx); err != nil {
			return len(rows), err
		}
	}
	if err := d.Stop(ctx); err != nil {
		return len(rows), err
	}
	if _, err := d.checkChecksums(ctx); err != nil {
		return len(rows), err
	}
	log, err := os.ReadFile(d.LogPath())
	if err != nil {
		return len(rows), err
	}
	if found := complaints(string(log)); len(found) > 0 {
		return len(rows), fmt.Errorf("%w: %s", errNoise, strings.Join(found, "; "))
	}
	return len(rows), nil
}

// secondDatabase is the one that runs on restored volumes.
func (t *test) secondDatabase(data string) (_ *database, err error) {
	if t.second == nil {
		if t.second, err = newDatabase(filepath.Join(t.scratch, "restored")); err != nil {
			return nil, err
		}
	}
	t.second.Data = data
	return t.second, nil
}

// compareShot: every transaction that was acknowledged before the snapshot was asked
// for is in it, none that began after it was answered, and of each client no other
// than its first ones.
func compareShot(runs []*benchRun, rows map[entry]bool, asked, answered time.Time) error {
	must, may, seen := 0, make(map[entry]bool), make(map[entry]int)
	for _, r := range runs {
		for client := range r.clients {
			may[entry{r.number, client, 1}] = r.cut || len(r.commits) > 0
		}
		for _, c := range r.commits {
			if c.at.Before(asked) {
				must++
				if !rows[c.entry] {
					return fmt.Errorf("run %d, client %d, number %d, acknowledged %v before the snapshot was asked for: %w",
						c.run, c.client, c.n, asked.Sub(c.at), errLost)
				}
			}
			// The next one of this client began after the answer to this one.
			if c.at.Before(answered) {
				may[entry{c.run, c.client, c.n + 1}] = true
			}
		}
	}
	for e := range rows {
		if !may[e] {
			return fmt.Errorf("run %d, client %d, number %d began after the snapshot was answered, or never: %w", e.run, e.client, e.n, errUnknown)
		}
		seen[entry{e.run, e.client, 0}] = max(seen[entry{e.run, e.client, 0}], e.n)
	}
	for client, last := range seen {
		for n := range last {
			if e := (entry{client.run, client.client, n + 1}); !rows[e] {
				return fmt.Errorf("run %d, client %d, number %d is missing and number %d is there: %w", e.run, e.client, e.n, last, errLost)
			}
		}
	}
	if must == 0 {
		return fmt.Errorf("no transaction was acknowledged before: %w", errNoise)
	}
	return nil
}

// spaceSlack is what the idle database may write, and what replicas that did not take
// the same way to the same bytes may differ by, while snapshots are deleted.
const spaceSlack = 16 << 20

// usedBytes is what each disk holds; they hold nothing but the volume.
func (t *test) usedBytes(ctx context.Context) ([]int64, error) {
	var all []int64
	for _, n := range t.nodes() {
		list, err := n.Agent().ListReplicas(ctx, &holdfastv1.ListReplicasRequest{})
		if err != nil {
			return nil, err
		}
		replicas := list.GetReplicas()
		if len(replicas) != 1 || replicas[0].GetVolumeId() != t.volume {
			return nil, fmt.Errorf("%d replicas on %s, want that of the volume alone", len(replicas), n.Name)
		}
		all = append(all, replicas[0].GetUsedBytes())
	}
	return all, nil
}

// spaceIsBack waits until each disk holds the volume alone, and less of it than before by
// what deleting the snapshots was said to free.
func (t *test) spaceIsBack(ctx context.Context, before []int64, freed int64) error {
	err := harness.Wait(ctx, "space to come back", func(ctx context.Context) error {
		now, err := t.usedBytes(ctx)
		if err != nil {
			return err
		}
		for i := range now {
			if now[i] > before[i]-freed*3/4+spaceSlack {
				return fmt.Errorf("%d bytes are used on %s, %d before, of which %d were to come back", now[i], t.nodes()[i].Name, before[i], freed)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errSpace, err)
	}
	return nil
}

// checkShot is the check of one more snapshot, for its planted fault.
func (t *test) checkShot(ctx context.Context) (string, error) {
	if t.stale == nil {
		if err := t.loadFor(ctx, t.options.lead); err != nil {
			return "", err
		}
		var err error
		if t.stale, err = t.takeShot(ctx); err != nil {
			return "", err
		}
	}
	taken := t.stale
	t.stale = nil
	return t.checkShots(ctx, []*shot{taken})
}

// plantStale lets the check have an older snapshot than it thinks.
func (t *test) plantStale(ctx context.Context) error {
	taken, err := t.takeShot(ctx)
	if err != nil {
		return err
	}
	if err := t.loadFor(ctx, t.options.lead); err != nil {
		return err
	}
	taken.asked, taken.answered = time.Now(), time.Now()
	t.stale = taken
	return nil
}
