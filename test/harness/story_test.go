package harness

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestSabotaged(t *testing.T) {
	for value, want := range map[string]error{"": nil, "move": nil, "remove": block.ErrInvalid} {
		t.Setenv("SABOTAGE", value)
		got, err := Sabotaged([]string{"data", "move"})
		if !errors.Is(err, want) || err == nil && got != value {
			t.Errorf("SABOTAGE=%s: %q, %v", value, got, err)
		}
	}
}

func TestTell(t *testing.T) {
	var done []string
	bad := errors.New("bad")
	steps := []Step{
		{"first", "works", time.Second, func(context.Context, bool) (string, error) {
			done = append(done, "first")
			return "a line\nanother\n", nil
		}},
		{"second", "fails if it is to", time.Second, func(_ context.Context, sabotaged bool) (string, error) {
			if sabotaged {
				return "", bad
			}
			done = append(done, "second")
			return "", nil
		}},
		{"third", "ends in its time", time.Millisecond, func(ctx context.Context, sabotaged bool) (string, error) {
			if sabotaged {
				<-ctx.Done()
			}
			return "", ctx.Err()
		}},
	}
	for _, c := range []struct {
		sabotage string
		cleaning error
		done     []string
		want     error
	}{
		{"", nil, []string{"first", "second", "cleaned up"}, nil},
		{"second", nil, []string{"first", "cleaned up after a failure"}, bad},
		{"third", nil, []string{"first", "second", "cleaned up after a failure"}, context.DeadlineExceeded},
		{"", bad, []string{"first", "second", "cleaned up"}, bad},
	} {
		done = nil
		err := Tell(t.Context(), steps, c.sabotage, func(ctx context.Context, failed bool) error {
			if failed {
				done = append(done, "cleaned up after a failure")
			} else {
				done = append(done, "cleaned up")
			}
			return errors.Join(c.cleaning, ctx.Err())
		})
		if !errors.Is(err, c.want) || !slices.Equal(done, c.done) {
			t.Errorf("with %q sabotaged: %v, %v", c.sabotage, done, err)
		}
	}
}

// An interrupted story cleans up all the same.
func TestTellAfterASignal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	steps := []Step{{"only", "is interrupted", time.Minute, func(ctx context.Context, _ bool) (string, error) {
		cancel()
		<-ctx.Done()
		return "", ctx.Err()
	}}}
	cleaned := false
	err := Tell(ctx, steps, "", func(ctx context.Context, failed bool) error {
		cleaned = failed && ctx.Err() == nil
		return nil
	})
	if !errors.Is(err, context.Canceled) || !cleaned {
		t.Errorf("cleaned up: %v, %v", cleaned, err)
	}
}
