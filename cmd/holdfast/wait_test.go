package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestWatch: what is waited for is looked at until it is over, the time is, or nobody has
// answered for as long as anybody waits for an answer.
func TestWatch(t *testing.T) {
	silent := status.Error(codes.Unavailable, "connection refused")
	half := sight{done: 1, total: 2, says: "it is half done"}
	over := sight{over: true}
	for name, c := range map[string]struct {
		// sights are what is seen one after the other; the last one stays.
		sights []any
		limit  time.Duration
		looks  int
		says   string
		code   codes.Code
	}{
		"over at once":             {sights: []any{over}, limit: time.Hour, looks: 1},
		"over after a while":       {sights: []any{half, half, over}, limit: time.Hour, looks: 3},
		"a daemon that comes back": {sights: []any{half, silent, silent, over}, limit: time.Hour, looks: 4},
		"one that does not":        {sights: []any{half, silent}, limit: time.Hour, looks: 1 + 20, says: "it is half done: rpc error", code: codes.Unavailable},
		"one that never was there": {sights: []any{silent}, limit: time.Hour, looks: 1, says: "connection refused", code: codes.Unavailable},
		"no more time":             {sights: []any{half}, limit: time.Second, looks: 2, says: "it is half done: context deadline exceeded", code: codes.DeadlineExceeded},
		"gone":                     {sights: []any{half, status.Error(codes.NotFound, "gone")}, limit: time.Hour, looks: 2, says: "gone", code: codes.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &app{stderr: io.Discard, timeout: 20 * pollInterval}
				// A look takes no time, so that the end of the limit falls between two.
				ctx, cancel := context.WithTimeout(t.Context(), c.limit-time.Millisecond)
				defer cancel()
				looks := 0
				err := a.watch(ctx, "it", func(context.Context) (sight, error) {
					seen := c.sights[min(looks, len(c.sights)-1)]
					looks++
					if err, failed := seen.(error); failed {
						return sight{}, err
					}
					return seen.(sight), nil
				})
				if looks != c.looks || (err == nil) != (c.says == "") {
					t.Fatalf("after %d looks: %v", looks, err)
				}
				if err != nil && (!strings.Contains(err.Error(), c.says) || code(err) != c.code || errors.Is(err, context.Canceled)) {
					t.Fatalf("%v: %v", code(err), err)
				}
			})
		})
	}
}
