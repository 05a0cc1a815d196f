// Package spoken says what it is.
package spoken
