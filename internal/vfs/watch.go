package vfs

import "sync/atomic"

// watchSlots bounds the age that a Watch tells, in ticks.
const watchSlots = 64

// Watch knows for how long operations have been running. Its clock is Tick, called by
// somebody about once a second: so an operation costs two additions, and a process that
// was stopped for a while, or a machine that slept, does not see its operations age.
type Watch struct {
	ticks   atomic.Uint32
	running [watchSlots]atomic.Int32
}

// Begin notes that an operation begins. End wants what it returns.
func (w *Watch) Begin() (began uint32) {
	began = w.ticks.Load()
	w.running[began%watchSlots].Add(1)
	return began
}

// End notes that an operation has ended.
func (w *Watch) End(began uint32) { w.running[began%watchSlots].Add(-1) }

// Tick lets time pass and returns the age of the oldest operation that runs, in ticks;
// at most 64, and 0 if none was there at the last tick.
func (w *Watch) Tick() (oldest int) {
	now := w.ticks.Load()
	for age := watchSlots - 1; age >= 0; age-- {
		if w.running[(now-uint32(age))%watchSlots].Load() > 0 {
			oldest = age + 1
			break
		}
	}
	w.ticks.Add(1)
	return oldest
}

// Idle reports whether nothing runs.
func (w *Watch) Idle() bool {
	for i := range w.running {
		if w.running[i].Load() > 0 {
			return false
		}
	}
	return true
}

// Device is the device with its operations watched.
func (w *Watch) Device(d Device) Device {
	watched := &watchedDevice{Device: d, watch: w}
	watched.done = watched.ended
	return watched
}

type watchedDevice struct {
	Device
	watch *Watch
	// done is ended, bound once.
	done func(*IO)
}

// Submit implements Device.
func (d *watchedDevice) Submit(io *IO) {
	io.submitter, io.Done = io.Done, d.done
	io.began = d.watch.Begin()
	d.Device.Submit(io)
}

func (d *watchedDevice) ended(io *IO) {
	io.Done, io.submitter = io.submitter, nil
	d.watch.End(io.began)
	io.Done(io)
}

// Do implements Doer.
func (d *watchedDevice) Do(io *IO) error {
	defer d.watch.End(d.watch.Begin())
	return Do(d.Device, io)
}

// Help implements Helper.
func (d *watchedDevice) Help(job func()) bool { return Help(d.Device, job) }

// Grow implements Device.
func (d *watchedDevice) Grow(size int64) error {
	defer d.watch.End(d.watch.Begin())
	return d.Device.Grow(size)
}

// Free implements Device.
func (d *watchedDevice) Free() (int64, error) {
	defer d.watch.End(d.watch.Begin())
	return d.Device.Free()
}
