package main

import (
	"sync"
	"time"
)

// meter measures acknowledged writes. It is safe for concurrent use.
type meter struct {
	mu sync.Mutex
	// marked is when mark was called, first the first acknowledgement since.
	marked, first, last time.Time
	longest             time.Duration
	acks                int
	recording           bool
	latencies           []time.Duration
}

// acknowledged notes the end of a write that began then.
func (m *meter) acknowledged(began time.Time) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.IsZero() {
		m.first = now
	}
	m.longest = max(m.longest, now.Sub(m.last))
	m.last = now
	m.acks++
	if m.recording {
		m.latencies = append(m.latencies, now.Sub(began))
	}
}

// count is how many there were.
func (m *meter) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acks
}

// mark begins a measurement of pauses.
func (m *meter) mark() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marked = time.Now()
	m.first, m.last, m.longest = time.Time{}, m.marked, 0
}

// pause is the longest time without an acknowledgement since mark.
func (m *meter) pause() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.longest, time.Since(m.last))
}

// untilFirst is how long after mark the first acknowledgement came.
func (m *meter) untilFirst() (after time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first.Sub(m.marked), !m.first.IsZero()
}

// record begins to keep latencies.
func (m *meter) record() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recording, m.latencies = true, nil
}

// recorded are the latencies kept since record.
func (m *meter) recorded() []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recording = false
	return m.latencies
}
