package canaries

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrFormat is a file that is not an edit, or one that does not fit the code any
// more.
var ErrFormat = errors.New("edit does not apply")

// Suffix ends the names of edits.
const Suffix = ".edit"

// maxSeeds bounds the runs in which the simulator must catch a bug.
const maxSeeds = 5000

// AssertionsOff is the edit that is applied with every other one.
const AssertionsOff = "assertions-off"

// Edit is one planted bug.
type Edit struct {
	Name string
	// Rule is the number of the broken rule, zero for AssertionsOff.
	Rule   int
	Breaks string
	// Explorer are configurations and Scenarios named ones of the simulator, each
	// of which must catch it. Seeds is how many of the simulator's random runs
	// may pass before one does. Test is a package and the test in it that must.
	Explorer  []string
	Scenarios []string
	Seeds     int
	Test      []string
	// Quick: it is caught within seconds, and shown by the package's own test.
	Quick   bool
	Changes []Change
}

// Caught reports whether anybody must catch it.
func (e *Edit) Caught() bool {
	return len(e.Explorer)+len(e.Scenarios)+e.Seeds+len(e.Test) > 0
}

// Change replaces the lines Old, which occur once in File, by New.
type Change struct {
	File     string
	Old, New string
}

// Load reads all edits of a folder, by name.
func Load(dir string) ([]Edit, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+Suffix))
	if err != nil {
		return nil, fmt.Errorf("list edits in %s: %w", dir, err)
	}
	slices.Sort(names)
	var edits []Edit
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read edit: %w", err)
		}
		e, err := Parse(strings.TrimSuffix(filepath.Base(name), Suffix), string(text))
		if err != nil {
			return nil, err
		}
		edits = append(edits, e)
	}
	return edits, nil
}

// parser reads one edit line by line.
type parser struct {
	edit Edit
	file string
	line int
	rest []string
}

// Parse reads the text of an edit.
func Parse(name, text string) (Edit, error) {
	p := &parser{edit: Edit{Name: name}, rest: strings.Split(text, "\n")}
	for len(p.rest) > 0 {
		if err := p.header(p.next()); err != nil {
			return Edit{}, fmt.Errorf("edit %s, line %d: %w", name, p.line, err)
		}
	}
	if len(p.edit.Changes) == 0 || p.edit.Breaks == "" || (p.edit.Rule == 0) != (name == AssertionsOff) {
		return Edit{}, fmt.Errorf("edit %s: a rule, what it breaks and a change must be there: %w", name, ErrFormat)
	}
	return p.edit, nil
}

func (p *parser) next() string {
	line := p.rest[0]
	p.rest = p.rest[1:]
	p.line++
	return line
}

func (p *parser) header(line string) error {
	if line == "<<<<" {
		return p.block()
	}
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	key, value, ok := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if !ok || value == "" {
		return fmt.Errorf("%q is no header: %w", line, ErrFormat)
	}
	switch key {
	case "rule":
		return number(value, 32, &p.edit.Rule)
	case "breaks":
		p.edit.Breaks = value
	case "explorer":
		p.edit.Explorer = strings.Fields(value)
	case "scenario":
		p.edit.Scenarios = strings.Fields(value)
	case "simulator":
		return number(value, maxSeeds, &p.edit.Seeds)
	case "test":
		p.edit.Test = strings.Fields(value)
		if len(p.edit.Test) != 2 {
			return fmt.Errorf("test %q is not a package and a name: %w", value, ErrFormat)
		}
	case "quick":
		p.edit.Quick = value == "yes"
	case "file":
		if !filepath.IsLocal(value) {
			return fmt.Errorf("file %q is outside of the tree: %w", value, ErrFormat)
		}
		p.file = value
	default:
		return fmt.Errorf("header %q: %w", key, ErrFormat)
	}
	return nil
}

// number reads a number of at least one.
func number(text string, most int, to *int) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return fmt.Errorf("%q is no number from 1 to %d: %w", text, most, ErrFormat)
	}
	*to = n
	return nil
}

func (p *parser) block() error {
	if p.file == "" {
		return fmt.Errorf("a change without a file: %w", ErrFormat)
	}
	old, err := p.until("====")
	if err != nil {
		return err
	}
	made, err := p.until(">>>>")
	if err != nil {
		return err
	}
	if strings.TrimSpace(old) == "" || old == made {
		return fmt.Errorf("a change of nothing: %w", ErrFormat)
	}
	p.edit.Changes = append(p.edit.Changes, Change{File: p.file, Old: old, New: made})
	return nil
}

func (p *parser) until(end string) (string, error) {
	var lines []string
	for len(p.rest) > 0 {
		line := p.next()
		if line == end {
			return strings.Join(lines, "\n"), nil
		}
		lines = append(lines, line)
	}
	return "", fmt.Errorf("no %s: %w", end, ErrFormat)
}

// Apply is the changed text of each file that edits change in the tree at root.
func Apply(root string, edits ...Edit) (map[string]string, error) {
	files := make(map[string]string)
	for _, e := range edits {
		for _, c := range e.Changes {
			text, ok := files[c.File]
			if !ok {
				data, err := os.ReadFile(filepath.Join(root, c.File))
				if err != nil {
					return nil, fmt.Errorf("apply edit %s: %w", e.Name, err)
				}
				text = "\n" + string(data)
			}
			if n := strings.Count(text, "\n"+c.Old+"\n"); n != 1 {
				return nil, fmt.Errorf("apply edit %s: %s has the old lines %d times: %w", e.Name, c.File, n, ErrFormat)
			}
			made := "\n" + c.New
			if c.New == "" {
				made = ""
			}
			files[c.File] = strings.Replace(text, "\n"+c.Old+"\n", made+"\n", 1)
		}
	}
	for name, text := range files {
		files[name] = text[1:]
	}
	return files, nil
}

// Overlay writes the changed files into dir and returns the file that the go
// command's flag -overlay wants. root must be absolute.
func Overlay(root, dir string, edits ...Edit) (string, error) {
	files, err := Apply(root, edits...)
	if err != nil {
		return "", err
	}
	replace := make(map[string]string)
	for name, text := range files {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "__"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write overlay: %w", err)
		}
		replace[filepath.Join(root, name)] = to
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	return path, nil
}
