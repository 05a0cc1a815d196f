package vfs

import "sync"

// GoExecutor runs jobs on a fixed number of goroutines, which it owns.
type GoExecutor struct {
	workers sync.WaitGroup

	mu     sync.Mutex
	wake   sync.Cond
	jobs   []func()
	head   int
	closed bool
}

// NewGoExecutor starts an executor with n workers. Jobs must not wait for each
// other, so any n above zero makes progress.
func NewGoExecutor(n int) *GoExecutor {
	e := &GoExecutor{}
	e.wake.L = &e.mu
	for range max(n, 1) {
		e.workers.Go(e.work)
	}
	return e
}

// Go implements Executor. After Close the job is dropped.
func (e *GoExecutor) Go(job func()) {
	e.mu.Lock()
	if !e.closed {
		if e.head > 0 && len(e.jobs) == cap(e.jobs) {
			e.jobs = e.jobs[:copy(e.jobs, e.jobs[e.head:])]
			e.head = 0
		}
		e.jobs = append(e.jobs, job)
	}
	e.mu.Unlock()
	e.wake.Signal()
}

// Close runs what is queued and joins the workers.
func (e *GoExecutor) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.wake.Broadcast()
	e.workers.Wait()
}

func (e *GoExecutor) work() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		if e.head == len(e.jobs) {
			e.jobs, e.head = e.jobs[:0], 0
			if e.closed {
				return
			}
			e.wake.Wait()
			continue
		}
		job := e.jobs[e.head]
		e.jobs[e.head] = nil
		e.head++
		e.mu.Unlock()
		job()
		e.mu.Lock()
	}
}

// StepExecutor keeps jobs until its owner runs them, in any order, on the
// owner's goroutine.
type StepExecutor struct {
	mu   sync.Mutex
	jobs []func()
}

// Go implements Executor.
func (e *StepExecutor) Go(job func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.jobs = append(e.jobs, job)
}

// Pending is the number of jobs that wait.
func (e *StepExecutor) Pending() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.jobs)
}

// Step runs the job at index i of those that wait, in the order of their
// arrival.
func (e *StepExecutor) Step(i int) {
	e.mu.Lock()
	job := e.jobs[i]
	e.jobs = append(e.jobs[:i], e.jobs[i+1:]...)
	e.mu.Unlock()
	job()
}

// Drop forgets every job that waits, as a crash does.
func (e *StepExecutor) Drop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.jobs = nil
}
