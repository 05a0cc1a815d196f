package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// progressDelay is how long something may take before it is worth a bar.
	progressDelay = 2 * time.Second
	// spinInterval is how often a line without a measure moves.
	spinInterval = 200 * time.Millisecond
	barCells     = 24
)

// progress is one line on a terminal that says how far something is. Elsewhere it
// writes nothing.
type progress struct {
	out   io.Writer
	label string
	begun time.Time
	// first is what was done when the total was first known: the rate is measured
	// from there.
	first     int64
	firstSeen time.Time
	shown     bool
}

// newProgress returns a line that appears only if it is to be shown on a terminal.
func newProgress(out io.Writer, label string) *progress {
	p := &progress{label: label, begun: time.Now()}
	if isTerminal(out) {
		p.out = out
	}
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// show draws the line: done of total bytes, or only the note if the total is 0.
func (p *progress) show(done, total int64, note string) {
	now := time.Now()
	if total > 0 && p.firstSeen.IsZero() {
		p.first, p.firstSeen = done, now
	}
	if p.out == nil || now.Sub(p.begun) < progressDelay {
		return
	}
	p.shown = true
	fmt.Fprintf(p.out, "\r\033[K%s", p.line(done, total, note, now))
}

// line is what is drawn at a time.
func (p *progress) line(done, total int64, note string, now time.Time) string {
	elapsed := now.Sub(p.begun).Round(time.Second)
	if total <= 0 {
		spinner := `|/-\`[int(now.Sub(p.begun)/spinInterval)%4]
		return fmt.Sprintf("%c %s, %s, %s", spinner, p.label, note, elapsed)
	}
	filled := int(int64(barCells) * min(done, total) / total)
	bar := strings.Repeat("#", filled) + strings.Repeat(".", barCells-filled)
	text := fmt.Sprintf("%s [%s] %3d%%  %s of %s", p.label, bar, 100*min(done, total)/total, formatSize(done), formatSize(total))
	if seconds := now.Sub(p.firstSeen).Seconds(); seconds > 0 && done > p.first {
		rate := float64(done-p.first) / seconds
		left := time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second)
		text += fmt.Sprintf("  %s/s  %s left", formatSize(int64(rate)), left)
	}
	return text + "  " + note
}

// end takes the line away.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.out, "\r\033[K")
		p.shown = false
	}
}

// working runs do and, on a terminal, shows that something is going on once it
// takes long.
func (a *app) working(label string, do func() error) error {
	p := newProgress(a.stderr, label)
	if p.out == nil {
		return do()
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	ticker := time.NewTicker(spinInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			p.end()
			return err
		case <-ticker.C:
			p.show(0, 0, "please wait")
		}
	}
}
