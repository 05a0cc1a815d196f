package lint

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// modulePath begins the import paths of this module.
const modulePath = "github.com/holdfast-io/holdfast"

// components are the parts that are built apart and wired together in cmd. None
// imports another.
var components = []string{"backup", "cluster", "driver", "engine", "operator", "replica"}

// purePackages are step machines: what they do depends on nothing but their input.
var purePackages = []string{"engine/core", "cluster/state"}

// pureImports are all that a pure package sees of this module.
var pureImports = []string{"engine/core", "cluster/state", "internal/block", "internal/invariant"}

// impureImports let a package see the clock, chance, the machine or another
// goroutine.
var impureImports = []string{
	"context", "crypto/rand", "io/fs", "log", "math/rand", "net", "os", "runtime", "sync", "syscall", "time",
}

// throughProto are the parts that reach the daemon by its API alone.
var throughProto = []string{"driver", "operator", "backup", "cmd/holdfast", "cmd/holdfast-csi", "cmd/holdfast-operator"}

// daemonInside is what those parts may not see.
var daemonInside = []string{"cluster", "engine", "replica", "internal/wire"}

// raftImports belong to cluster.
var raftImports = []string{
	"github.com/hashicorp/raft", "github.com/hashicorp/raft-autopilot", "github.com/hashicorp/raft-wal",
}

// kubernetesImports belong to driver and operator.
var kubernetesImports = []string{
	"github.com/container-storage-interface", "github.com/kubernetes-csi", "k8s.io", "sigs.k8s.io",
}

// TestImports holds "who may import whom" of docs/architecture.md. Tests beside the
// code and everything under test/ may import what they test with.
func TestImports(t *testing.T) {
	holds(t, "imports", checkImports)
}

func checkImports(root string) ([]violation, error) {
	var found []violation
	err := eachGoFile(root, func(f goFile) {
		if f.test || under(f.pkg, "test") {
			return
		}
		for _, spec := range f.syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue // the parser has refused it already
			}
			for _, message := range importFaults(f.pkg, imported) {
				found = append(found, violation{file: f.path, line: f.line(spec.Pos()), message: message})
			}
		}
	})
	return found, err
}

// edge is one import: pkg is the importing folder, path what it imports, and folder
// the same below this module, or "" for what is not of this module.
type edge struct{ pkg, path, folder string }

// standard says whether the imported package is of the standard library.
func (e edge) standard() bool { return !strings.Contains(strings.Split(e.path, "/")[0], ".") }

// importRules are what an edge may not be.
var importRules = []struct {
	why    string
	broken func(edge) bool
}{
	{"the vocabulary imports the standard library only", func(e edge) bool {
		return e.pkg == "internal/block" && !e.standard()
	}},
	{"a pure package sees only values: no clock, chance, machine or goroutine", func(e edge) bool {
		if !under(e.pkg, purePackages...) {
			return false
		}
		return under(e.path, impureImports...) || !e.standard() && !under(e.folder, pureImports...)
	}},
	{"only cmd wires components together", func(e edge) bool {
		part := component(e.folder)
		return part != "" && part != component(e.pkg) && !under(e.pkg, "cmd")
	}},
	{"only cluster knows Raft", func(e edge) bool {
		return under(e.path, raftImports...) && !under(e.pkg, "cluster")
	}},
	{"only driver and operator know CSI and Kubernetes", func(e edge) bool {
		logging := under(e.path, "k8s.io/klog") && under(e.pkg, "cmd/holdfast-csi", "cmd/holdfast-operator")
		return under(e.path, kubernetesImports...) && !under(e.pkg, "driver", "operator") && !logging
	}},
	{"the daemon is reached through proto, and NBD for data", func(e edge) bool {
		// A disk that no daemon has open is verified without one.
		offline := e.pkg == "cmd/holdfast" && e.folder == "replica/store"
		return under(e.pkg, throughProto...) && under(e.folder, daemonInside...) && !offline
	}},
	{"nothing imports a command", func(e edge) bool {
		return under(e.folder, "cmd") && !under(e.pkg, "cmd")
	}},
	{"the product does not import its tests", func(e edge) bool {
		return under(e.folder, "test")
	}},
}

// importFaults says what is wrong with pkg importing imported.
func importFaults(pkg, imported string) []string {
	e := edge{pkg: pkg, path: imported}
	if folder, ours := strings.CutPrefix(imported, modulePath+"/"); ours {
		e.folder = folder
	}
	var faults []string
	for _, rule := range importRules {
		if rule.broken(e) {
			faults = append(faults, fmt.Sprintf("%s imports %s: %s", pkg, imported, rule.why))
		}
	}
	return faults
}

// component is the component a folder belongs to, or "".
func component(folder string) string {
	for _, c := range components {
		if under(folder, c) {
			return c
		}
	}
	return ""
}
