package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func openOf(t *testing.T) func(f vfs.File, err error) vfs.File {
	return func(f vfs.File, err error) vfs.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, f vfs.File, data string) {
	t.Helper()
	if _, err := f.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
}

// content is what a file has, "-" if there is none.
func content(t *testing.T, d *MemDir, name string) string {
	t.Helper()
	f, err := d.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return "-"
	}
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, err)
	return string(b)
}

const unspecified = vfs.WriteCategoryUnspecified

// newUnsynced is a file system with something unsynced of every kind.
func newUnsynced(t *testing.T) *MemDir {
	d, open := NewMemDir(), openOf(t)
	must(t, d.MkdirAll("a/b", 0o700))
	f := open(d.Create("a/old", unspecified))
	put(t, f, strings.Repeat("o", 1000))
	must(t, f.Sync())
	for _, dir := range []string{"", "a", "a/b"} {
		must(t, open(d.OpenDir(dir)).Sync())
	}
	reused := open(d.ReuseForWrite("a/old", "a/reused", unspecified))
	put(t, reused, strings.Repeat("r", 600))
	put(t, reused, strings.Repeat("s", 600))
	f = open(d.Create("a/b/synced", unspecified))
	put(t, f, "synced")
	must(t, f.Sync(), d.Link("a/b/synced", "a/b/linked"), d.Remove("a/b/synced"))
	return d
}

func TestMemDirCrash(t *testing.T) {
	d := newUnsynced(t)
	image := d.Image()
	var list []string
	for _, u := range image.Unsynced() {
		list = append(list, u.String())
	}
	want := []string{
		"rename [old reused] in /a", "create [synced] in /a/b", "link [linked] in /a/b", "remove [synced] in /a/b",
		"write a/reused [0, +600)", "write a/reused [600, +600)",
	}
	slices.Sort(list)
	if sorted := slices.Sorted(slices.Values(want)); !slices.Equal(list, sorted) {
		t.Fatalf("unsynced are %q", list)
	}
	at := func(text string) int {
		return slices.IndexFunc(image.Unsynced(), func(u UnsyncedChange) bool { return u.String() == text })
	}
	long := func(parts ...any) string {
		var b bytes.Buffer
		for i := 0; i < len(parts); i += 2 {
			b.WriteString(strings.Repeat(parts[i].(string), parts[i+1].(int)))
		}
		return b.String()
	}
	for _, c := range []struct {
		kept    []string
		torn    string
		full    bool
		expects map[string]string
	}{
		{expects: map[string]string{"a/old": long("o", 1000), "a/reused": "-", "a/b/synced": "-", "a/b/linked": "-"}},
		{kept: want[:1], expects: map[string]string{"a/old": "-", "a/reused": long("o", 1000)}},
		{kept: want[1:2], expects: map[string]string{"a/b/synced": "synced", "a/b/linked": "-"}},
		// Names of a directory survive in their order.
		{kept: want[2:4], expects: map[string]string{"a/b/synced": "-", "a/b/linked": "-"}},
		{kept: want[1:4], expects: map[string]string{"a/b/synced": "-", "a/b/linked": "synced"}},
		{kept: want[4:5], expects: map[string]string{"a/old": long("r", 600, "o", 400)}},
		{kept: want[5:], expects: map[string]string{"a/old": long("o", 600, "s", 600)}},
		// The first sector of the second write is the rest of the file's second.
		{torn: want[5], expects: map[string]string{"a/old": long("o", 600, "s", 400) + long("s", 24)}},
		{torn: want[5], full: true, expects: map[string]string{"a/old": long("o", 600, "s", 424, "\x00", 176)}},
		{full: true, expects: map[string]string{"a/old": long("o", 1000, "\x00", 200)}},
	} {
		after := image.Crash(func(i, sector int) bool {
			return slices.ContainsFunc(c.kept, func(text string) bool { return at(text) == i }) ||
				c.torn != "" && at(c.torn) == i && sector == 0
		}, func(int) bool { return c.full })
		for name, want := range c.expects {
			if got := content(t, after, name); got != want {
				t.Errorf("kept %q, torn %q, full %v: %s is %q, want %q", c.kept, c.torn, c.full, name, got, want)
			}
		}
		if left := after.Image().Unsynced(); len(left) > 0 {
			t.Errorf("after a crash %v is unsynced", left)
		}
	}
	if content(t, d, "a/b/linked") != "synced" {
		t.Fatal("a crash has changed what it was made from")
	}
}

// TestMemDirFork: a copy keeps what was unsynced as such, and is independent.
func TestMemDirFork(t *testing.T) {
	d := newUnsynced(t)
	fork := d.Fork()
	if got, want := fmt.Sprint(fork.Image().Unsynced()), fmt.Sprint(d.Image().Unsynced()); got != want {
		t.Fatalf("unsynced in the copy %s, want %s", got, want)
	}
	f := openOf(t)(fork.OpenReadWrite("a/reused", unspecified))
	put(t, f, "fork")
	must(t, f.Sync(), fork.Remove("a/b/linked"))
	if content(t, d, "a/reused")[:4] != "rrrr" || content(t, d, "a/b/linked") != "synced" || content(t, fork, "a/reused")[:4] != "fork" {
		t.Fatal("the copy shares something")
	}
}

func TestMemDirSync(t *testing.T) {
	d, open := NewMemDir(), openOf(t)
	var synced []string
	d.OnSync(func(name string) bool {
		synced = append(synced, name)
		return name != "lied"
	})
	for _, name := range []string{"lied", "told"} {
		f := open(d.Create(name, unspecified))
		put(t, f, name)
		must(t, f.SyncData())
	}
	must(t, open(d.OpenDir("/")).Sync())
	after := d.Image().Crash(func(int, int) bool { return false }, func(int) bool { return false })
	if content(t, after, "lied") != "" || content(t, after, "told") != "told" || !slices.Equal(synced, []string{"lied", "told", "/"}) {
		t.Fatalf("synced %q", synced)
	}
}

func TestMemDirRefuses(t *testing.T) {
	d := newUnsynced(t)
	_, absent := d.Open("a/absent")
	_, nowhere := d.Create("nowhere/file", unspecified)
	for _, err := range []error{absent, nowhere, d.Remove("a/absent"), d.Rename("a/absent", "a/x")} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("of what is not there: %v", err)
		}
	}
	if err := d.Remove("a/b"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a directory with names: %v", err)
	}
	if err := d.Rename("a/reused", "a/b/reused"); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("to another directory: %v", err)
	}
	lock, err := d.Lock("a/LOCK")
	must(t, err)
	if _, err := d.Lock("a/LOCK"); err == nil {
		t.Error("locked twice")
	}
	must(t, lock.Close(), d.RemoveAll("a"), d.RemoveAll("a"))
	if names, err := d.List(""); err != nil || len(names) > 0 {
		t.Errorf("%q are left: %v", names, err)
	}
}
