package canaries

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEditsApply: every edit fits the code as it is now.
func TestEditsApply(t *testing.T) {
	edits, err := Load(".")
	if err != nil {
		t.Fatal(err)
	}
	checked := false
	for _, e := range edits {
		files, err := Apply("../..", e)
		if err != nil {
			t.Error(err)
		}
		for name, text := range files {
			data, err := os.ReadFile(filepath.Join("../..", name))
			if err != nil || string(data) == text {
				t.Errorf("edit %s changes nothing in %s (%v)", e.Name, name, err)
			}
		}
		checked = checked || e.Name == AssertionsOff
		if e.Rule != 0 && !e.Caught() {
			t.Errorf("edit %s: nobody must catch it", e.Name)
		}
	}
	if !checked {
		t.Errorf("there is no edit %s", AssertionsOff)
	}
}

const sample = `# a comment
rule: 9
breaks: a sum
explorer: one two
simulator: 20
scenario: four
test: ./sums TestSums
quick: yes
file: sums.txt
<<<<
two
====
three
>>>>
`

func TestParse(t *testing.T) {
	e, err := Parse("sample", sample)
	if err != nil {
		t.Fatal(err)
	}
	if e.Rule != 9 || e.Breaks != "a sum" || len(e.Explorer) != 2 || e.Seeds != 20 ||
		len(e.Scenarios) != 1 || len(e.Test) != 2 || !e.Quick || len(e.Changes) != 1 {
		t.Errorf("parsed %+v", e)
	}
	for name, broken := range map[string]string{
		"no rule":        strings.Replace(sample, "rule: 9\n", "", 1),
		"rule 33":        strings.Replace(sample, "9", "33", 1),
		"no seeds":       strings.Replace(sample, "simulator: 20", "simulator: none", 1),
		"no test":        strings.Replace(sample, " TestSums", "", 1),
		"no end":         strings.Replace(sample, ">>>>", "", 1),
		"no middle":      strings.Replace(sample, "====", "", 1),
		"no file":        strings.Replace(sample, "file: sums.txt\n", "", 1),
		"a way out":      strings.Replace(sample, "sums.txt", "../sums.txt", 1),
		"no change":      strings.Replace(sample, "three", "two", 1),
		"unknown header": strings.Replace(sample, "breaks", "braeks", 1),
	} {
		if _, err := Parse("sample", broken); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestApplyOnce: lines that moved, or that are there twice, are refused.
func TestApplyOnce(t *testing.T) {
	e, err := Parse("sample", sample)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for text, want := range map[string]string{
		"one\ntwo\nfour\n":  "one\nthree\nfour\n",
		"two\n":             "three\n",
		"one\n two\n":       "",
		"two\none\ntwo\n":   "",
		"one\ntwo and so\n": "",
	} {
		if err := os.WriteFile(filepath.Join(root, "sums.txt"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files, err := Apply(root, e)
		if want == "" {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err != nil || files["sums.txt"] != want {
			t.Errorf("%q becomes %q, %v", text, files["sums.txt"], err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := Parse("sample", text); err == nil && (e.Rule < 1 || e.Rule > 32 || len(e.Changes) == 0) {
			t.Errorf("parsed %+v", e)
		}
	})
}
