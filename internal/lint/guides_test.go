package lint

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuides: what a guide names exists: the targets of make, the files and folders
// it links or quotes, the decision records in their index. Figures are well-formed.
func TestGuides(t *testing.T) {
	holds(t, "guides", checkGuides)
}

var (
	// codeSpan is `what stands in backquotes`; commandLine a line a reader types.
	codeSpan    = regexp.MustCompile("`([^`]+)`")
	commandLine = regexp.MustCompile(`^\s*\$ (.*)$`)
	makeCall    = regexp.MustCompile(`\bmake ([a-z][a-z0-9-]*)`)
	makeTarget  = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
	link        = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	quotedPath  = regexp.MustCompile(`^[\w.-]+(/[\w.-]+)+/?$`)
	recordTitle = regexp.MustCompile(`(?m)^# (\d{4}): (.+)$`)
)

// guides is the check of one tree.
type guides struct {
	root    string
	targets map[string]bool
	index   string // of the decision records
	found   []violation
}

func checkGuides(root string) ([]violation, error) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return nil, err
	}
	index, err := os.ReadFile(filepath.Join(root, "docs/adr/README.md"))
	if err != nil {
		return nil, err
	}
	g := &guides{root: root, targets: map[string]bool{}, index: string(index)}
	for _, target := range makeTarget.FindAllStringSubmatch(string(makefile), -1) {
		g.targets[target[1]] = true
	}
	err = eachFile(root, func(file string, content []byte) error {
		switch path.Ext(file) {
		case ".md":
			g.checkGuide(file, string(content))
		case ".svg":
			g.checkFigure(file, string(content))
		}
		return nil
	})
	return g.found, err
}

func (g *guides) fault(file string, line int, format string, arguments ...any) {
	g.found = append(g.found, violation{file, line, fmt.Sprintf(format, arguments...)})
}

func (g *guides) checkGuide(file, content string) {
	for i, line := range strings.Split(content, "\n") {
		var commands []string
		if command := commandLine.FindStringSubmatch(line); command != nil {
			commands = append(commands, command[1])
		}
		for _, span := range codeSpan.FindAllStringSubmatch(line, -1) {
			commands = append(commands, span[1])
			g.checkQuoted(file, i+1, span[1])
		}
		for _, command := range commands {
			command, _, _ = strings.Cut(command, "#")
			for _, call := range makeCall.FindAllStringSubmatch(command, -1) {
				if !g.targets[call[1]] {
					g.fault(file, i+1, "there is no target %q", call[1])
				}
			}
		}
		for _, target := range link.FindAllStringSubmatch(line, -1) {
			g.checkLink(file, i+1, target[1])
		}
	}
	if under(file, "docs/adr") && path.Base(file) != "README.md" {
		g.checkRecord(file, content)
	}
}

// checkQuoted takes a code span for a path if it begins with a folder of the root.
func (g *guides) checkQuoted(file string, line int, span string) {
	first, _, _ := strings.Cut(span, "/")
	if !quotedPath.MatchString(span) || first == "bin" || !g.exists(first) {
		return
	}
	if !g.exists(span) {
		g.fault(file, line, "there is no path %q", span)
	}
}

func (g *guides) checkLink(file string, line int, target string) {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "#") {
		return
	}
	target, _, _ = strings.Cut(target, "#")
	if !g.exists(path.Join(path.Dir(file), target)) {
		g.fault(file, line, "the link to %q leads nowhere", target)
	}
}

func (g *guides) exists(name string) bool {
	_, err := os.Stat(filepath.Join(g.root, filepath.FromSlash(name)))
	return err == nil
}

// checkRecord: the title's number is the file's, and the index has both.
func (g *guides) checkRecord(file, content string) {
	title := recordTitle.FindStringSubmatch(content)
	if title == nil || !strings.HasPrefix(path.Base(file), title[1]+"-") {
		g.fault(file, 1, "the title of a record is '# NNNN: Title' with the number of its file")
		return
	}
	if !strings.Contains(g.index, fmt.Sprintf("| [%s](%s) | %s |", title[1], path.Base(file), title[2])) {
		g.fault(file, 1, "the record is not in the index with its title")
	}
}

func (g *guides) checkFigure(file, content string) {
	decoder := xml.NewDecoder(strings.NewReader(content))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			line, _ := decoder.InputPos()
			g.fault(file, line, "not well-formed: %v", err)
			return
		}
	}
}
