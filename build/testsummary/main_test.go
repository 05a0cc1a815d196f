package main

import (
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, stream string) (string, bool) {
	t.Helper()
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	good := r.close(time.Second)
	return out.String(), good
}

const passing = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:12: the kernel has no NBD\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Elapsed":1.5}
{"Action":"skip","Package":"q"}
`

func TestGoodRun(t *testing.T) {
	out, good := run(t, passing)
	if !good {
		t.Error("a passing run was called bad")
	}
	for _, want := range []string{"the kernel has no NBD", "PASS: 1 packages (1 more without tests), 1 tests passed, 0 failed, 1 skipped"} {
		if !strings.Contains(out, want) {
			t.Errorf("summary lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "noise") {
		t.Errorf("output of a passing test was shown:\n%s", out)
	}
}

func TestBadRuns(t *testing.T) {
	for name, test := range map[string]struct{ stream, want string }{
		"failed test": {
			passing + `{"Action":"output","Package":"r","Test":"TestC","Output":"c_test.go:1: broken\n"}
{"Action":"fail","Package":"r","Test":"TestC"}
{"Action":"fail","Package":"r"}
`, "broken"},
		"panic": {
			passing + `{"Action":"output","Package":"r","Test":"TestC","Output":"panic: boom\n"}
{"Action":"fail","Package":"r"}
`, "boom"},
		"build failure": {
			passing + `{"ImportPath":"r","Action":"build-output","Output":"r.go:1: syntax error\n"}
{"Action":"fail","Package":"r"}
`, "syntax error"},
		"nothing ran": {"go: cannot find main module\n", "cannot find main module"},
	} {
		t.Run(name, func(t *testing.T) {
			out, good := run(t, test.stream)
			if good {
				t.Errorf("a bad run was called good:\n%s", out)
			}
			if !strings.Contains(out, test.want) || !strings.Contains(out, "FAIL: ") {
				t.Errorf("report lacks %q or the verdict:\n%s", test.want, out)
			}
		})
	}
}
