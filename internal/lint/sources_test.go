package lint

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"testing"
)

// TestNoSleep: waiting for a time is waiting for the wrong thing. Code waits for an
// event, with a timer from internal/clock as its bound.
func TestNoSleep(t *testing.T) {
	holds(t, "sleep", checkSleep)
}

func checkSleep(root string) ([]violation, error) {
	var found []violation
	err := eachGoFile(root, func(f goFile) {
		if f.test || under(f.pkg, "test") {
			return
		}
		name := importName(f.syntax, "time")
		ast.Inspect(f.syntax, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == name && selector.Sel.Name == "Sleep" {
				found = append(found, violation{f.path, f.line(selector.Pos()), "time.Sleep outside of tests"})
			}
			return true
		})
	})
	return found, err
}

// importName is the name a file gives to an import, or "" if it does not import it.
func importName(file *ast.File, imported string) string {
	for _, spec := range file.Imports {
		if value, err := strconv.Unquote(spec.Path.Value); err != nil || value != imported {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(imported)
	}
	return ""
}

// TestPackageComments: every package says what it is, in doc.go or in the file of a
// command's main.
func TestPackageComments(t *testing.T) {
	holds(t, "comments", checkPackageComments)
}

func checkPackageComments(root string) ([]violation, error) {
	type state struct {
		first     string
		line      int
		commented bool
	}
	packages := map[string]*state{}
	err := eachGoFile(root, func(f goFile) {
		if f.generated {
			return
		}
		p := packages[f.pkg]
		if p == nil {
			p = &state{first: f.path, line: f.line(f.syntax.Package)}
			packages[f.pkg] = p
		}
		p.commented = p.commented || f.syntax.Doc != nil
	})
	var found []violation
	for _, p := range packages {
		if !p.commented {
			found = append(found, violation{p.first, p.line, "the package has no comment; give it a doc.go"})
		}
	}
	return found, err
}

// TestPackageNames: a package is named after what it is about.
func TestPackageNames(t *testing.T) {
	holds(t, "names", checkPackageNames)
}

// emptyNames say nothing about what is inside.
var emptyNames = []string{"base", "common", "helper", "helpers", "lib", "manager", "misc", "shared", "util", "utils"}

func checkPackageNames(root string) ([]violation, error) {
	var found []violation
	err := eachGoFile(root, func(f goFile) {
		if slices.Contains(emptyNames, f.syntax.Name.Name) || slices.Contains(emptyNames, path.Base(f.pkg)) {
			found = append(found, violation{f.path, f.line(f.syntax.Package), "a name that says nothing"})
		}
	})
	return found, err
}
