package frontend

import (
	"context"
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// fixed is a driver that is there or not; only the choice is tested.
type fixed struct {
	Driver
	name string
	err  error
}

func (f fixed) Name() string { return f.name }

func (f fixed) Available(context.Context) error { return f.err }

func TestChoose(t *testing.T) {
	missing := fixed{name: "nbd", err: block.ErrUnavailable}
	there := fixed{name: "fuse"}
	ctx := context.Background()
	if d, err := Choose(ctx, "", fixed{name: "nbd"}, there); err != nil || d.Name() != "nbd" {
		t.Error("the first that is there:", d, err)
	}
	if d, err := Choose(ctx, "", missing, there); err != nil || d.Name() != "fuse" {
		t.Error("the fallback:", d, err)
	}
	if d, err := Choose(ctx, "fuse", fixed{name: "nbd"}, there); err != nil || d.Name() != "fuse" {
		t.Error("the override:", d, err)
	}
	if _, err := Choose(ctx, "nbd", missing, there); !errors.Is(err, block.ErrUnavailable) {
		t.Error("an override that is not there:", err)
	}
	if _, err := Choose(ctx, "iscsi", missing, there); !errors.Is(err, block.ErrInvalid) {
		t.Error("an unknown override:", err)
	}
}

type nowhere struct{}

func (nowhere) Submit(r *nbd.Request) { r.Complete(block.ErrClosed, nil) }

func TestSpec(t *testing.T) {
	spec := Spec{
		Volume: block.VolumeID{ID: block.ID{1}}, Attachment: block.AttachmentID{ID: block.ID{2}},
		Size: 1 << 20, Backend: nowhere{},
	}
	if err := spec.Validate(); err != nil || spec.LogicalBlockSize != 4096 {
		t.Fatal(spec, err)
	}
	if id, err := ParseIdentity(spec.Identity().String()); err != nil || id != spec.Identity() {
		t.Fatal(id, err)
	}
	for name, change := range map[string]func(*Spec){
		"volume":     func(s *Spec) { s.Volume = block.VolumeID{} },
		"attachment": func(s *Spec) { s.Attachment = block.AttachmentID{} },
		"size":       func(s *Spec) { s.Size = 1000 },
		"block size": func(s *Spec) { s.LogicalBlockSize = 1024 },
		"backend":    func(s *Spec) { s.Backend = nil },
	} {
		bad := spec
		change(&bad)
		if err := bad.Validate(); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add(Identity{}.String())
	f.Add("x/y")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseIdentity(s)
		if err != nil {
			if !errors.Is(err, block.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if again, err := ParseIdentity(id.String()); err != nil || again != id {
			t.Fatal(again, err)
		}
	})
}
