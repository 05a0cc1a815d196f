package explore

import (
	"context"
	"testing"
)

func TestTry(t *testing.T) {
	x, err := New(Config{Name: "try", Replicas: 2, Members: 2, MinInSync: 1, Blocks: 1, Window: 2,
		Bounds: Bounds{Writes: 1, Reads: 1, Engines: 1}}, Options{Workers: 1, Bytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	r, err := x.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if r.Violation != nil {
		v, text := r.Violation.Shorten()
		t.Errorf("%v\n%s", v.Err, text)
	}
}
