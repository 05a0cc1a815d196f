package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// raftVersion is the one version that was measured and tested; see the decision
// record about Raft before changing it.
const raftVersion = "v1.8.0"

// TestModules guards go.mod. raft-boltdb and raft disagree about a metrics library;
// adding the former silently downgrades the latter. Pebble's bare path resolves to
// an old major version.
func TestModules(t *testing.T) {
	holds(t, "modules", checkModules)
}

// requirement is a line of go.mod that names a module, directly or in a block.
var requirement = regexp.MustCompile(`^\s*(?:require\s+)?([\w.\-/~]+\.[\w.\-/~]+)\s+(v\S+)`)

// TestModulesMissingRaft: a go.mod without raft is not a clean one.
func TestModulesMissingRaft(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "go.mod"), []byte("module example.org/empty\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := checkModules(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 {
		t.Errorf("found %v, want one violation", found)
	}
}

func checkModules(root string) ([]violation, error) {
	// The planted file has another name, so that its folder is not a module.
	name := "go.mod"
	if _, err := os.Stat(filepath.Join(root, name)); err != nil {
		name = "planted.mod"
	}
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return nil, err
	}
	var found []violation
	raft := false
	for i, line := range strings.Split(string(content), "\n") {
		fault := func(message string) { found = append(found, violation{name, i + 1, message}) }
		if strings.HasPrefix(strings.TrimSpace(line), "replace ") {
			fault("a replacement does not reach those who import the module")
		}
		match := requirement.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		switch module, version := match[1], match[2]; module {
		case "github.com/hashicorp/raft":
			raft = true
			if version != raftVersion {
				fault("raft is not " + raftVersion)
			}
		case "github.com/hashicorp/raft-boltdb", "github.com/hashicorp/raft-boltdb/v2":
			fault("raft-boltdb downgrades raft")
		case "github.com/cockroachdb/pebble":
			fault("pebble without /v2 is an old version")
		}
	}
	if !raft {
		found = append(found, violation{name, 1, "raft is missing"})
	}
	return found, nil
}
