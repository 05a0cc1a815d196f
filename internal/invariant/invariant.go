// Package invariant holds the assertions that stay on in production. A broken
// invariant of our own code must never go on to touch somebody's data: it stops
// the engine or store that noticed it. What a peer, a disk or a user sends is
// never asserted, it is an error.
package invariant

import "fmt"

// Violation is the panic value of Assert. The owner of an engine or store
// recovers it, stops that object and reports it.
type Violation struct{ Message string }

// Error implements error.
func (v Violation) Error() string { return "invariant violated: " + v.Message }

// Assert panics with a Violation unless ok. Arguments are formatted only on
// failure.
func Assert(ok bool, format string, args ...any) {
	if !ok {
		panic(Violation{Message: fmt.Sprintf(format, args...)})
	}
}
