package turn

import (
	"errors"
	"sync"

	"github.com/holdfast-io/holdfast/internal/socket"
)

// Loop is a thread that also waits for sockets.
type Loop interface {
	// Run runs f on the thread, beside its other work, with the socket fd, and returns
	// when f has returned. f must not block but in what the Stream offers. It reports
	// false, and f is not run, if the loop takes no more.
	Run(fd int, f func(Stream)) bool
}

// Stream is a socket in the care of a loop. All but Stop and Unpark are for the function
// that the loop runs.
type Stream interface {
	// Read waits for bytes while the loop does other work. After Stop it fails with
	// os.ErrDeadlineExceeded; with ErrMoved, and nothing read, if the loop is about to
	// end and boundary is true.
	Read(b []byte, boundary bool) (int, error)
	// Park gives the thread away until Unpark; also before, or for no reason.
	Park()
	Unpark()
	// Stop ends Read, the next one too.
	Stop()
	// Turn is that of the loop.
	Turn() *Turn
}

// ErrMoved is what Reader's methods fail with when its bytes are read elsewhere from now
// on: what parses them returns it, and is called again there.
var ErrMoved = errors.New("the connection is read elsewhere")

// Reader reads a connection, on a goroutine at first, and then on the loop in whose
// turns its work ends, if there is one.
type Reader struct {
	socket *socket.Socket
	plain  bool
	// own is the turn of the goroutine.
	own Turn
	// boundary: nothing is half read.
	boundary bool

	mu sync.Mutex
	// home is where to move next; refused takes no more.
	home, refused Loop
	// stream is there while a loop reads.
	stream  Stream
	stopped bool
}

// NewReader makes a Reader of a socket.
func NewReader(s *socket.Socket) *Reader { return &Reader{socket: s, plain: s.Plain()} }

// Run calls parse, again after each move, and returns its last error.
func (r *Reader) Run(parse func() error) error {
	for {
		err := parse()
		r.own.End()
		if !errors.Is(err, ErrMoved) {
			return err
		}
		r.mu.Lock()
		home := r.home
		r.home = nil
		r.mu.Unlock()
		if home == nil {
			continue
		}
		if err = r.runOn(home, parse); !errors.Is(err, ErrMoved) {
			return err
		}
	}
}

// runOn runs parse on a loop.
func (r *Reader) runOn(loop Loop, parse func() error) error {
	err := ErrMoved
	looseErr := r.socket.Loosen(func(fd int) {
		ran := loop.Run(fd, func(s Stream) {
			r.enter(s)
			err = parse()
			r.enter(nil)
		})
		if !ran {
			r.mu.Lock()
			r.refused = loop
			r.mu.Unlock()
		}
	})
	if errors.Is(err, ErrMoved) && looseErr != nil {
		return looseErr
	}
	return err
}

func (r *Reader) enter(s Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stream = s
	if s != nil && r.stopped {
		s.Stop()
	}
}

// Suggest tells in whose turn work of the connection has ended, from anywhere.
func (r *Reader) Suggest(t *Turn) {
	loop := t.Loop()
	if loop == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream == nil && loop != r.refused && r.plain {
		r.home = loop
	}
}

// Turn is the turn of whoever parses.
func (r *Reader) Turn() *Turn {
	if r.stream != nil {
		return r.stream.Turn()
	}
	return &r.own
}

// Boundary says that nothing is half read. When it fails parse returns.
func (r *Reader) Boundary() error {
	r.boundary = true
	if r.stream != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.home != nil {
		return ErrMoved
	}
	return nil
}

// Read implements io.Reader. It ends the turn before it waits.
func (r *Reader) Read(b []byte) (n int, err error) {
	if r.stream != nil {
		n, err = r.stream.Read(b, r.boundary)
	} else {
		r.own.End()
		n, err = r.socket.Read(b)
	}
	r.boundary = false
	return n, err
}

// Stop ends the Read of a loop, and the next one too, with os.ErrDeadlineExceeded. That
// of a goroutine ends by a deadline of the connection.
func (r *Reader) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	if r.stream != nil {
		r.stream.Stop()
	}
}

// Room lets the one who parses wait for others. Its mutex is the owner's.
type Room struct {
	reader *Reader
	cond   sync.Cond
	parked bool
}

// Init gives Room the mutex under which it is used.
func (w *Room) Init(mu *sync.Mutex, r *Reader) { w.cond.L, w.reader = mu, r }

// Wait waits for Signal, or for less. The mutex is held, but not while it waits.
func (w *Room) Wait() {
	if w.reader.stream == nil {
		w.cond.Wait()
		return
	}
	w.parked = true
	w.cond.L.Unlock()
	w.reader.stream.Park()
	w.cond.L.Lock()
	w.parked = false
}

// Signal ends a Wait. The mutex is held.
func (w *Room) Signal() {
	if w.parked {
		w.parked = false
		w.reader.stream.Unpark()
		return
	}
	w.cond.Signal()
}
