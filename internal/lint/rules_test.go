package lint

import (
	"cmp"
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestRules holds engine/DESIGN.md to the code: each rule has one home, a declaration
// whose comment says so, or waits for the feature that it belongs to; the table names
// that home, attacks that are tests, and the planted bugs of the rule with those who
// catch them.
func TestRules(t *testing.T) {
	holds(t, "rules", checkRules)
}

// TestRulesAreComplete: none of the 32 was lost on the way.
func TestRulesAreComplete(t *testing.T) {
	r := newRules(moduleRoot)
	if err := r.read(); err != nil {
		t.Fatal(err)
	}
	if len(r.stated) != 32 || len(r.rows) != 32 {
		t.Errorf("%s states %d rules and has %d in its table, want 32", designPath, len(r.stated), len(r.rows))
	}
}

// designPath is the document about the rules, canaryPath the folder of planted bugs.
const (
	designPath = "engine/DESIGN.md"
	canaryPath = "test/canaries"
)

var (
	// homeLine begins the part of a comment that makes its declaration a home.
	homeLine  = regexp.MustCompile(`^// Rule (\d+)\b(?: \(([^)]+)\):)?`)
	statement = regexp.MustCompile(`^\*\*(\d+)\. ([^*]+)\.\*\*`)
	reason    = "*Without it:*"
	// ruleCell is the first cell of a row of the table.
	ruleCell = regexp.MustCompile(`^(\d+) (.+)$`)
	// planted is a canary in the table, with those who catch it.
	planted    = regexp.MustCompile("`(r\\d\\d-[a-z0-9-]+)` \\(([a-z, ]+)\\)")
	headerLine = regexp.MustCompile(`(?m)^(rule|explorer|scenario|simulator|test): *(\S+)`)
	testFunc   = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// waiting begins the home of a rule whose feature is not there yet.
const waiting = "comes with "

// rules is the check of one tree.
type rules struct {
	root    string
	stated  map[int]ruleText
	rows    map[int]ruleText
	homes   map[int]ruleHome
	attacks string // the text of all tests
	tests   map[string]bool
	found   []violation
}

// ruleText is a rule as the document has it.
type ruleText struct {
	line                            int
	name, home, attacks, canaryList string
	argued                          bool
}

// ruleHome is a declaration that keeps a rule.
type ruleHome struct {
	file, symbol, name string
	line               int
}

func newRules(root string) *rules {
	return &rules{root: root, stated: map[int]ruleText{}, rows: map[int]ruleText{}, homes: map[int]ruleHome{}, tests: map[string]bool{}}
}

func checkRules(root string) ([]violation, error) {
	r := newRules(root)
	if err := r.read(); err != nil {
		return nil, err
	}
	r.compare()
	if err := r.checkCanaries(); err != nil {
		return nil, err
	}
	slices.SortFunc(r.found, func(a, b violation) int {
		return cmp.Or(strings.Compare(a.file, b.file), a.line-b.line)
	})
	return r.found, nil
}

func (r *rules) fault(file string, line int, format string, arguments ...any) {
	r.found = append(r.found, violation{file, line, fmt.Sprintf(format, arguments...)})
}

// read takes in the document, the homes and the names of all tests.
func (r *rules) read() error {
	design, err := os.ReadFile(filepath.Join(r.root, designPath))
	if err != nil {
		return err
	}
	r.readDesign(string(design))
	return eachGoFile(r.root, func(f goFile) {
		if f.test {
			r.readTests(f)
		}
		if !under(f.pkg, "test") && !f.test {
			r.readHomes(f)
		}
	})
}

func (r *rules) readDesign(text string) {
	last := 0
	for i, line := range strings.Split(text, "\n") {
		if m := statement.FindStringSubmatch(line); m != nil {
			last = number(m[1])
			if _, twice := r.stated[last]; twice {
				r.fault(designPath, i+1, "rule %d is stated twice", last)
				continue
			}
			r.stated[last] = ruleText{line: i + 1, name: m[2]}
		}
		if strings.HasPrefix(line, reason) && last > 0 {
			s := r.stated[last]
			s.argued = true
			r.stated[last] = s
		}
		r.readRow(i+1, line)
	}
}

// readRow takes in a row of the table: rule, home, attacks, canaries.
func (r *rules) readRow(at int, line string) {
	cells := strings.Split(line, "|")
	if len(cells) < 6 || cells[0] != "" {
		return
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	m := ruleCell.FindStringSubmatch(cells[1])
	if m == nil {
		return
	}
	n := number(m[1])
	if _, twice := r.rows[n]; twice {
		r.fault(designPath, at, "rule %d is in the table twice", n)
		return
	}
	r.rows[n] = ruleText{line: at, name: m[2], home: cells[2], attacks: cells[3], canaryList: cells[4]}
}

func (r *rules) readTests(f goFile) {
	content, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(f.path)))
	if err != nil {
		return // the parser has read it
	}
	for _, m := range testFunc.FindAllStringSubmatch(string(content), -1) {
		r.tests[m[1]] = true
	}
	if under(f.pkg, "test") {
		r.attacks += string(content)
	}
}

// readHomes finds the comments that make a declaration the home of a rule.
func (r *rules) readHomes(f goFile) {
	owners := map[*ast.CommentGroup]string{}
	for _, d := range f.syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			owners[d.Doc] = d.Name.Name
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok {
					owners[d.Doc], owners[t.Doc] = t.Name.Name, t.Name.Name
				}
			}
		}
	}
	for _, group := range f.syntax.Comments {
		for _, c := range group.List {
			m := homeLine.FindStringSubmatch(c.Text)
			if m == nil {
				continue
			}
			n, at := number(m[1]), f.line(c.Pos())
			symbol := owners[group]
			switch first, twice := r.homes[n]; {
			case symbol == "" || m[2] == "":
				r.fault(f.path, at, "'Rule %d' begins a line, and is not the home of the rule: 'Rule %d (name):' above a declaration", n, n)
			case twice:
				r.fault(f.path, at, "rule %d has a home already: %s in %s", n, first.symbol, first.file)
			default:
				r.homes[n] = ruleHome{file: f.path, line: at, name: m[2], symbol: path.Base(f.pkg) + "." + symbol}
			}
		}
	}
}

// compare holds statements, table and homes against each other.
func (r *rules) compare() {
	for n, s := range r.stated {
		if !s.argued {
			r.fault(designPath, s.line, "nothing says what goes wrong without rule %d", n)
		}
		if _, ok := r.rows[n]; !ok {
			r.fault(designPath, s.line, "rule %d is not in the table", n)
		}
	}
	for n, row := range r.rows {
		home, built := r.homes[n]
		s, ok := r.stated[n]
		switch waits := strings.HasPrefix(row.home, waiting); {
		case !ok || !strings.EqualFold(s.name, row.name):
			r.fault(designPath, row.line, "rule %d is called %q in the table and %q where it is stated", n, row.name, s.name)
		case waits && built:
			r.fault(designPath, row.line, "rule %d waits, and has a home: %s", n, home.symbol)
		case !waits && !built:
			r.fault(designPath, row.line, "rule %d has no home", n)
		case built && row.home != "`"+home.symbol+"`":
			r.fault(designPath, row.line, "the home of rule %d is %s", n, home.symbol)
		}
		for _, attack := range codeSpan.FindAllStringSubmatch(row.attacks, -1) {
			if !r.tests[attack[1]] && !strings.Contains(r.attacks, strconv.Quote(attack[1])) {
				r.fault(designPath, row.line, "no test has the attack %q", attack[1])
			}
		}
	}
	for n, home := range r.homes {
		if _, ok := r.rows[n]; !ok {
			r.fault(home.file, home.line, "rule %d is not in the table of %s", n, designPath)
		}
	}
}

// checkCanaries holds the table against the planted bugs.
func (r *rules) checkCanaries() error {
	listed := map[string]bool{}
	for n, row := range r.rows {
		for _, m := range planted.FindAllStringSubmatch(row.canaryList, -1) {
			listed[m[1]] = true
			text, err := os.ReadFile(filepath.Join(r.root, canaryPath, m[1]+".edit"))
			if err != nil {
				r.fault(designPath, row.line, "there is no canary %q", m[1])
				continue
			}
			rule, catchers := canaryHeader(string(text))
			if rule != n {
				r.fault(designPath, row.line, "canary %s breaks rule %d", m[1], rule)
			}
			if catchers != m[2] {
				r.fault(designPath, row.line, "canary %s is caught by: %s", m[1], catchers)
			}
		}
		if !strings.HasPrefix(row.home, waiting) && !planted.MatchString(row.canaryList) {
			r.fault(designPath, row.line, "rule %d has no canary", n)
		}
	}
	return fs.WalkDir(os.DirFS(filepath.Join(r.root, canaryPath)), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		canary, isEdit := strings.CutSuffix(name, ".edit")
		if !isEdit {
			return nil
		}
		text, err := fs.ReadFile(os.DirFS(filepath.Join(r.root, canaryPath)), name)
		if err != nil {
			return err
		}
		if n, _ := canaryHeader(string(text)); n > 0 && !listed[canary] {
			r.fault(path.Join(canaryPath, name), 1, "the canary of rule %d is not in the table of %s", n, designPath)
		}
		return nil
	})
}

// canaryHeader is the rule of an edit and those who must catch it.
func canaryHeader(text string) (rule int, catchers string) {
	var list []string
	for _, m := range headerLine.FindAllStringSubmatch(text, -1) {
		if m[1] == "rule" {
			rule = number(m[2])
		} else {
			list = append(list, m[1])
		}
	}
	slices.Sort(list)
	return rule, strings.Join(slices.Compact(list), ", ")
}

// number is a number that a pattern has found to be digits.
func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}
