package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

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

// describe is the message of an error and, where there is one, the next step.
func describe(err error, server string) string {
	message, hint := err.Error(), ""
	var found failure
	var answered interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &found):
		hint = found.hint
	case errors.As(err, &answered):
		// gRPC's own prefix ("rpc error: code = ...") says nothing to people.
		if inner, ok := answered.(error); ok {
			message = strings.Replace(message, inner.Error(), answered.GRPCStatus().Message(), 1)
		}
		hint = nextStep(code(err), server)
	default:
		hint = nextStep(code(err), server)
	}
	if hint == "" {
		return message
	}
	return message + "\n  " + hint
}

// nextStep is advice that holds for every error of a code.
func nextStep(code codes.Code, server string) string {
	switch code {
	case codes.Unavailable:
		return fmt.Sprintf("is holdfastd running, and is it reached by %s? Name another daemon with --server", server)
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
