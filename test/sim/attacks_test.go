package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// attack says who plays one of the attacks on the rules. A name alone is a scenario
// of this package.
type attack struct {
	name string
	// scenario: TestScenario plays it.
	scenario bool
	// tests play it, or the part of it that is outside of the simulator, as
	// "package TestName".
	tests []string
	// waits is the feature that it attacks, if that is not built yet.
	waits string
}

// attacks are all attacks against which the rules of engine/DESIGN.md were written.
func attacks() []attack {
	played := func(name string, tests ...string) attack { return attack{name: name, scenario: true, tests: tests} }
	tested := func(name string, tests ...string) attack { return attack{name: name, tests: tests} }
	later := func(name, feature string) attack { return attack{name: name, waits: feature} }
	return []attack{
		played("kill-unflushed"),
		played("last-cache-loss"),
		tested("old-device", "engine TestOldDevice", "driver TestStaleAttachmentIsNotReused"),
		played("flush-then-crash"),
		played("attach-removal"),
		played("target-drop"),
		played("foreign-intent"),
		played("holder-returns"),
		played("stale-dirty"),
		played("admission-unknown"),
		played("repair-flip"),
		played("read-inflight"),
		played("same-epoch", "engine/frontend/socket TestNextClientWaitsForTheRequestsOfTheOld"),
		played("sub-block"),
		played("cut-divergent"),
		played("cut-unknown"),
		played("absent-deletes"),
		later("clone-races", "clones"),
		later("recover-subsets", "recovery from disks"),
		later("force-return", "force"),
		later("old-voters", "recovery of Raft"),
		played("rollback"),
		played("lease"),
		tested("store-crash", "replica/store TestRandomCrashes", "test/crash TestEverySync"),
		played("fsync-fails"),
		played("full-and-slow"),
		played("retry-storm", "engine/frontend/socket TestNextClientWaitsForTheRequestsOfTheOld"),
		played("admission-queued"),
		played("lost-removal"),
		played("repair-unlogged"),
		played("clear-divergent"),
		played("repair-target"),
		played("takeover-logs"),
		played("rollback-twice"),
		played("two-proposers", "cluster/state TestPropose"),
		played("cut-during-admission"),
		played("incarnation-split"),
		played("restart-container", "internal/vfs TestSystemIncarnation"),
	}
}

// TestAttacksArePlayed holds the list against what there is.
func TestAttacksArePlayed(t *testing.T) {
	names := make(map[string]bool)
	for _, sc := range scenarios() {
		names[sc.name] = true
	}
	seen := make(map[string]bool)
	for _, a := range attacks() {
		if seen[a.name] {
			t.Errorf("%s is listed twice", a.name)
		}
		seen[a.name] = true
		if a.scenario && !names[a.name] {
			t.Errorf("%s is no scenario", a.name)
		}
		if (a.waits != "") == (a.scenario || len(a.tests) > 0) {
			t.Errorf("%s is to be played or to wait, one of the two", a.name)
		}
		for _, test := range a.tests {
			dir, name, _ := strings.Cut(test, " ")
			if !hasTest(t, filepath.Join("../..", dir), name) {
				t.Errorf("%s: package %s has no %s", a.name, dir, name)
			}
		}
	}
	if hasTest(t, ".", "TestOfNoAttack") || !hasTest(t, ".", "TestAttacksArePlayed") {
		t.Error("tests are not found")
	}
}

// hasTest reports whether a package has a test of that name.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, f.Name()), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == name {
				return true
			}
		}
	}
	return false
}
