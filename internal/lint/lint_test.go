package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// moduleRoot is the module's root, seen from this package.
const moduleRoot = "../.."

// violation is one line that breaks a rule.
type violation struct {
	file    string // relative to the root that was checked, with slashes
	line    int
	message string
}

func (v violation) String() string { return fmt.Sprintf("%s:%d: %s", v.file, v.line, v.message) }

// check finds the violations of one rule below root.
type check func(root string) ([]violation, error)

// holds runs a check over the module, which must be clean, and over the planted
// tree testdata/name, where exactly the marked lines must be found.
func holds(t *testing.T, name string, c check) {
	t.Helper()
	t.Run("module", func(t *testing.T) {
		found, err := c(moduleRoot)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range found {
			t.Error(v)
		}
	})
	t.Run("planted", func(t *testing.T) {
		root := filepath.Join("testdata", name)
		found, err := c(root)
		if err != nil {
			t.Fatal(err)
		}
		matchWants(t, root, found)
	})
}

// want marks a line of a planted tree; the group is a regular expression.
var want = regexp.MustCompile(`want "([^"]*)"`)

// matchWants fails unless found and the marks below root cover each other.
func matchWants(t *testing.T, root string, found []violation) {
	t.Helper()
	marks := 0
	err := eachFile(root, func(file string, content []byte) error {
		for i, line := range strings.Split(string(content), "\n") {
			mark := want.FindStringSubmatch(line)
			if mark == nil {
				continue
			}
			marks++
			index := slices.IndexFunc(found, func(v violation) bool {
				return v.file == file && v.line == i+1 && regexp.MustCompile(mark[1]).MatchString(v.message)
			})
			if index < 0 {
				t.Errorf("%s:%d: a planted violation was not found: %s", file, i+1, mark[1])
				continue
			}
			found = slices.Delete(found, index, index+1)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Errorf("found what was not planted: %s", v)
	}
	if marks == 0 {
		t.Errorf("nothing is planted in %s", root)
	}
}

// skipped are never part of what is checked. In a linked worktree .git is a file.
var skipped = []string{".git", "bin", "testdata"}

// eachFile calls f for every regular file of the module at root.
func eachFile(root string, f func(file string, content []byte) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case relative == ".":
			return nil
		case entry.IsDir():
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if err == nil || slices.Contains(skipped, entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		case !entry.Type().IsRegular() || slices.Contains(skipped, entry.Name()):
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(relative), content)
	})
}

// goFile is one parsed source file.
type goFile struct {
	path      string // relative to the root, with slashes
	pkg       string // its folder; "." for the root
	test      bool
	generated bool
	syntax    *ast.File
	set       *token.FileSet
}

func (f goFile) line(pos token.Pos) int { return f.set.Position(pos).Line }

// eachGoFile parses every Go file of the module at root.
func eachGoFile(root string, f func(goFile)) error {
	return eachFile(root, func(file string, content []byte) error {
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, file, content, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parse %s: %w", file, err)
		}
		f(goFile{
			path:      file,
			pkg:       filepath.ToSlash(filepath.Dir(file)),
			test:      strings.HasSuffix(file, "_test.go"),
			generated: ast.IsGenerated(syntax),
			syntax:    syntax,
			set:       set,
		})
		return nil
	})
}

// under says whether a slash-separated path is one of the folders or below one.
func under(path string, folders ...string) bool {
	for _, folder := range folders {
		if path == folder || strings.HasPrefix(path, folder+"/") {
			return true
		}
	}
	return false
}
