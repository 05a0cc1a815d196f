package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// logTailBytes is how much of a log is worth showing.
const logTailBytes = 16 << 10

// process is a program that can be started, stopped and started again. Its output
// is appended to one file over all its lives.
type process struct {
	name string
	path string
	log  string

	mu   sync.Mutex
	life *life
}

// life is one run of a process.
type life struct {
	cmd *exec.Cmd
	// done is closed once the process is gone and reaped; err is its end.
	done chan struct{}
	err  error
	// asked: somebody wanted it to end, or has been told that it did by itself.
	asked bool
}

// start begins a life with these arguments.
func (p *process) start(args []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("start %s: it is running", p.name)
	}
	if err := p.untimely(); err != nil {
		return err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s %v\n", p.path, args)
	// Its life is ended by stop and kill, not by the context of who started it.
	l := &life{cmd: exec.CommandContext(context.Background(), p.path, args...), done: make(chan struct{})}
	l.cmd.Stdout, l.cmd.Stderr = log, log
	// A test binary that is killed takes its daemons with it. Signals of the
	// terminal are not for them: who started them stops them in order.
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := StartChild(l.cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	// It ends with the process, which kill ends for certain.
	go func() {
		l.err = l.cmd.Wait()
		close(l.done)
	}()
	p.life = l
	return nil
}

// running reports whether the process lives. p.mu is held.
func (p *process) running() bool {
	if p.life == nil {
		return false
	}
	select {
	case <-p.life.done:
		return false
	default:
		return true
	}
}

// untimely is, once, the end of a process that nobody had asked to end: a crash, which
// must not pass for what a test has done. p.mu is held.
func (p *process) untimely() error {
	if p.life == nil || p.life.asked || p.running() {
		return nil
	}
	p.life.asked = true
	return p.ended()
}

// current is the life that goes on; nil if there is none.
func (p *process) current() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil
	}
	return p.life
}

// end is the life that goes on and is about to be ended; nil if there is none.
func (p *process) end() (*life, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil, p.untimely()
	}
	p.life.asked = true
	return p.life, nil
}

// signal sends a signal to the process alone, not to what it has started.
func (p *process) signal(sig os.Signal) error {
	l := p.current()
	if l == nil {
		return fmt.Errorf("signal %v to %s: it is not running", sig, p.name)
	}
	if err := l.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %v to %s: %w", sig, p.name, err)
	}
	return nil
}

// kill ends the process by SIGKILL and waits until it is gone. One that has ended by
// itself is an error.
func (p *process) kill() error {
	l, err := p.end()
	if l == nil {
		return err
	}
	if err := l.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-l.done
	return nil
}

// stop asks the process to end and waits for it; when the context ends first, it
// is killed. An end other than exit code 0 is an error, and any that came by itself.
func (p *process) stop(ctx context.Context) error {
	l, err := p.end()
	if l == nil {
		return err
	}
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		if err := p.kill(); err != nil {
			return err
		}
		return fmt.Errorf("stop %s: it had to be killed: %w", p.name, ctx.Err())
	}
	if l.err != nil {
		return fmt.Errorf("stop %s: %w", p.name, l.err)
	}
	return nil
}

// check fails with the end of the log if the process is not running.
func (p *process) check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life == nil {
		return fmt.Errorf("%s was never started", p.name)
	}
	if p.running() {
		return nil
	}
	p.life.asked = true
	return p.ended()
}

// ended says how the last life ended. p.mu is held.
func (p *process) ended() error {
	end := "exit status 0"
	if p.life.err != nil {
		end = p.life.err.Error()
	}
	return fmt.Errorf("%s has ended (%s); its log ends with\n%s", p.name, end, p.tail())
}

// tail is the end of the log.
func (p *process) tail() string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTailBytes {
		if _, err := f.Seek(-logTailBytes, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, logTailBytes))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(data))
}
