package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress tells a person how far the run is: on a terminal by one line that
// changes, elsewhere by a line for each step of the preparation and each round.
type progress struct {
	out      *os.File
	terminal bool
	// began is when the first turn did; zero before.
	began time.Time
	round int
}

func newProgress(out *os.File) *progress {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return &progress{out: out, terminal: err == nil, round: -1}
}

const clearLine = "\r\x1b[K"

// note tells what is being done.
func (p *progress) note(text string) {
	if p.terminal {
		fmt.Fprintf(p.out, "%s%s ...", clearLine, text)
		return
	}
	fmt.Fprintf(p.out, "bench: %s\n", text)
}

// turn tells that turn i of n begins.
func (p *progress) turn(i, n int, t turn) {
	if p.began.IsZero() {
		p.began = time.Now()
	}
	left := "the time left is not known yet"
	if i > 0 {
		left = fmt.Sprintf("%v left", timeLeft(time.Since(p.began), i, n))
	}
	switch {
	case p.terminal:
		fmt.Fprintf(p.out, "%s%3d%%  %s  round %d: %s, %s", clearLine, 100*i/n, left, t.Round+1, t.Workload.Title, t.Contender.Title)
	case t.Round != p.round:
		fmt.Fprintf(p.out, "bench: round %d, %s\n", t.Round+1, left)
	}
	p.round = t.Round
}

// timeLeft supposes that what is to come goes as what was.
func timeLeft(elapsed time.Duration, done, all int) time.Duration {
	return (elapsed / time.Duration(done) * time.Duration(all-done)).Round(time.Second)
}

// end leaves the terminal clean.
func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.out, clearLine)
	}
}
