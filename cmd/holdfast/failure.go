package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// failure is an error that this program found itself, with the next step.
type failure struct {
	code          codes.Code
	message, hint string
}

// Error has no hint in it; describe adds that.
func (f failure) Error() string { return f.message }

// GRPCStatus makes a failure count like one that a daemon answered.
func (f failure) GRPCStatus() *status.Status { return status.New(f.code, f.message) }

// advised is an error with the next step, which its command knows better.
type advised struct {
	error
	hint string
}

func (e advised) Unwrap() error { return e.error }

// advise adds the next step to an error of a code.
func advise(err error, of codes.Code, hint string) error {
	if err == nil || code(err) != of {
		return err
	}
	return advised{err, hint}
}

// exitCode is what the help of the root command promises.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	switch code(err) {
	case codes.InvalidArgument, codes.OutOfRange:
		return 2
	case codes.NotFound:
		return 3
	case codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted:
		return 4
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Unknown:
		return 5
	default:
		return 1
	}
}

// code is the gRPC code of an error; Internal for one that has none.
func code(err error) codes.Code {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	var answered interface{ GRPCStatus() *status.Status }
	if errors.As(err, &answered) {
		return answered.GRPCStatus().Code()
	}
	return codes.Internal
}

// describe is the message of an error and, where there is one, the next step. Daemons
// speak of IDs; what the command line names is called so.
func (a *app) describe(err error) string {
	message, hint := err.Error(), nextStep(code(err), a.server)
	var found failure
	var answered interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &found):
		hint = found.hint
	case errors.As(err, &answered):
		// gRPC's own prefixes ("rpc error: code = ...") say nothing to people.
		if inner, ok := answered.(error); ok {
			message = strings.Replace(message, inner.Error(), plain(answered.GRPCStatus().Message()), 1)
		}
	}
	var told advised
	if errors.As(err, &told) {
		hint = told.hint
	}
	for id, name := range a.named {
		message = strings.ReplaceAll(message, id, name)
	}
	if hint == "" {
		return message
	}
	return message + "\n  " + hint
}

// plain is a message of gRPC without the words around what the system said.
func plain(message string) string {
	inner, wrapped := strings.CutPrefix(message, `connection error: desc = "`)
	if !wrapped {
		return message
	}
	return strings.TrimPrefix(strings.TrimSuffix(inner, `"`), "transport: Error while dialing: ")
}

// reach says what to look at when a daemon does not answer.
func reach(server string) string {
	if socket, local := strings.CutPrefix(server, "unix://"); local {
		switch err := unix.Access(socket, unix.W_OK); {
		case errors.Is(err, fs.ErrNotExist):
			return "holdfastd does not run on this machine, or has another --run-dir. Start it, or name another daemon with --server"
		case errors.Is(err, fs.ErrPermission):
			return "only root may use the socket: try it with sudo, or name another daemon with --server"
		}
	}
	return fmt.Sprintf("is holdfastd running, and is it reached by %s? Name another daemon with --server", server)
}

// nextStep is advice that holds for every error of a code.
func nextStep(code codes.Code, server string) string {
	switch code {
	case codes.Unavailable:
		return reach(server)
	case codes.DeadlineExceeded:
		return "it may still happen: look before you try again, or wait longer with --timeout"
	case codes.Unknown:
		return "whether it happened is not known: look before you try again"
	case codes.ResourceExhausted:
		return "holdfast disk list shows what the disks have left; holdfast disk add gives the cluster more"
	default:
		return ""
	}
}
