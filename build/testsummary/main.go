// Testsummary reads the event stream of `go test -json` on standard input,
// prints one line for each package and the whole output of what failed, and
// closes with a summary a person can judge a run by: counts, every skipped test
// with its reason, the slowest packages and tests. It exits with 1 if anything failed, and
// also if nothing ran, which is a broken run and not a green one.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// slowestMax bounds the lists of slow packages and of slow tests in the summary.
const slowestMax = 5

func main() {
	began := time.Now()
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(1)
	}
	if !r.close(time.Since(began)) {
		os.Exit(1)
	}
}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output events
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// testKey names one test of one package; an empty test names the package.
type testKey struct{ pkg, test string }

// taken is what one package or test took.
type taken struct {
	name    string
	seconds float64
}

// report gathers events. It is used by one goroutine.
type report struct {
	out             io.Writer
	output          map[testKey][]string
	passed          int
	failed, skipped []testKey
	reasons         map[testKey]string
	packages, tests []taken
	packagesFailed  []string
	packagesEmpty   int
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[testKey][]string{}, reasons: map[testKey]string{}}
}

// read takes events until the stream ends. A line that is no event (what a
// compiler or the go command itself says) is passed through.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var e event
			if line[0] != '{' || json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.out, "%s", line)
			} else {
				r.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

func (r *report) take(e event) {
	key := testKey{pkg: e.Package, test: e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(key, e)
		}
	}
}

func (r *report) endTest(key testKey, e event) {
	if !strings.Contains(key.test, "/") {
		r.tests = append(r.tests, taken{name: short(key.pkg) + " " + key.test, seconds: e.Elapsed})
	}
	switch e.Action {
	case "pass":
		r.passed++
		delete(r.output, key)
	case "skip":
		r.skipped = append(r.skipped, key)
		r.reasons[key] = skipReason(r.output[key])
		delete(r.output, key)
	case "fail":
		r.failed = append(r.failed, key)
		fmt.Fprint(r.out, strings.Join(r.output[key], ""))
		delete(r.output, key)
	}
}

func (r *report) endPackage(e event) {
	switch e.Action {
	case "skip":
		r.packagesEmpty++
		return
	case "fail":
		r.packagesFailed = append(r.packagesFailed, e.Package)
		r.printUnfinished(e.Package)
		fmt.Fprintf(r.out, "FAIL %-60s %7.1f s\n", short(e.Package), e.Elapsed)
	default:
		fmt.Fprintf(r.out, "ok   %-60s %7.1f s\n", short(e.Package), e.Elapsed)
	}
	r.packages = append(r.packages, taken{name: short(e.Package), seconds: e.Elapsed})
	for key := range r.output {
		if key.pkg == e.Package {
			delete(r.output, key)
		}
	}
}

// printUnfinished prints what a failed package said outside of its finished
// tests: a panic, a data race, a time limit.
func (r *report) printUnfinished(pkg string) {
	for key, lines := range r.output {
		if key.pkg == pkg && key.test != "" {
			fmt.Fprint(r.out, strings.Join(lines, ""))
		}
	}
	fmt.Fprint(r.out, strings.Join(r.output[testKey{pkg: pkg}], ""))
}

// close prints the summary and says whether the run was good.
func (r *report) close(took time.Duration) bool {
	good := len(r.packagesFailed) == 0 && len(r.failed) == 0 && len(r.packages) > 0
	fmt.Fprintf(r.out, "\n----------------------------------------------------------------------\n")
	for _, key := range r.skipped {
		fmt.Fprintf(r.out, "skipped  %s %s: %s\n", short(key.pkg), key.test, r.reasons[key])
	}
	for _, list := range [][]taken{r.packages, r.tests} {
		slices.SortFunc(list, func(a, b taken) int { return cmp.Compare(b.seconds, a.seconds) })
		for _, slow := range list[:min(slowestMax, len(list))] {
			fmt.Fprintf(r.out, "slowest  %-56s %7.1f s\n", slow.name, slow.seconds)
		}
	}
	for _, key := range r.failed {
		fmt.Fprintf(r.out, "failed   %s %s\n", short(key.pkg), key.test)
	}
	for _, pkg := range r.packagesFailed {
		fmt.Fprintf(r.out, "failed   %s\n", short(pkg))
	}
	verdict := "PASS"
	if !good {
		verdict = "FAIL"
	}
	fmt.Fprintf(r.out, "%s: %d packages (%d more without tests), %d tests passed, %d failed, %d skipped, %s\n",
		verdict, len(r.packages), r.packagesEmpty, r.passed, len(r.failed), len(r.skipped), took.Round(time.Second))
	return good
}

// skipReason is the text a test gave to t.Skip: the line before "--- SKIP",
// without the position the testing package puts in front.
func skipReason(output []string) string {
	reason := "no reason given"
	for _, line := range output {
		text := strings.TrimSpace(line)
		if text == "" || strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- ") {
			continue
		}
		if _, after, found := strings.Cut(text, ".go:"); found {
			if _, message, ok := strings.Cut(after, ": "); ok {
				text = message
			}
		}
		reason = text
	}
	return reason
}

func short(pkg string) string {
	return strings.TrimPrefix(pkg, "github.com/holdfast-io/holdfast/")
}
