package robustness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
	"github.com/holdfast-io/holdfast/test/harness/links"
)

// heal takes back every kind of trouble there may be.
func (s *stage) heal(ctx context.Context) error {
	errs := []error{s.network.Heal(ctx)}
	for _, n := range s.cluster.Nodes {
		errs = append(errs, n.Thaw())
	}
	errs = append(errs, s.startAll(ctx))
	return errors.Join(errs...)
}

// startAll starts those that do not run: all at once, as one alone may wait for the
// others.
func (s *stage) startAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return s.onEach(func(i int) error {
		if n := s.node(i); !n.Running() {
			return n.Start(ctx)
		}
		return nil
	})
}

// takeDown takes the volume and its replicas away through the product, and looks
// whether they are gone.
func (s *stage) takeDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := s.detach(ctx); err != nil {
		return err
	}
	n := s.node(s.home)
	if _, err := n.Volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: s.volume}); err != nil {
		return fmt.Errorf("delete volume: %w", err)
	}
	err := harness.Wait(ctx, "the replicas to be deleted", func(ctx context.Context) error {
		copies, err := s.cluster.Copies(ctx, s.volume)
		if err == nil && len(copies) > 0 {
			err = fmt.Errorf("%d are there", len(copies))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range s.cluster.Nodes {
		left, err := os.ReadDir(filepath.Join(n.Dir, "run", "sockets"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("%s keeps the device of a deleted volume: %v", n.Name, left)
		}
	}
	return nil
}

// clean ends everything and looks whether something is left.
func (s *stage) clean(ctx context.Context) error {
	var errs []error
	var namespaces []links.Identity
	if s.network != nil {
		found, err := s.network.Identities()
		namespaces = found
		errs = append(errs, err)
		if s.cluster != nil {
			errs = append(errs, s.network.Heal(ctx))
		}
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Stop(ctx))
	}
	if s.network != nil {
		errs = append(errs, s.network.Close())
	}
	left, err := leftBehind(s.dir, namespaces)
	errs = append(errs, err)
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %v", left))
	}
	return errors.Join(errs...)
}
