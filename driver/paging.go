package driver

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pageEntries is how many entries of a list the daemon is asked for at a time.
const pageEntries = 500

// listPage lists at most maxEntries of something, or all from the token on if that
// is 0; those are fetched in pages, because a message has a limit. fetch asks the
// daemon for one page and returns its entries and the token of the next.
func listPage[T any](maxEntries int32, token, what string, fetch func(maxEntries int32, token string) ([]T, string, error)) ([]T, string, error) {
	switch {
	case maxEntries < 0:
		return nil, "", invalid("max_entries is %d, below zero", maxEntries)
	case maxEntries > 0:
		page, next, err := fetch(maxEntries, token)
		return page, next, fromPage(err, token, what)
	}
	var all []T
	for {
		page, next, err := fetch(pageEntries, token)
		if err != nil {
			return nil, "", fromPage(err, token, what)
		}
		all = append(all, page...)
		if token = next; token == "" {
			return all, "", nil
		}
	}
}

// fromPage translates an error of a page. The specification wants ABORTED for a
// token that is not one; tokens are IDs.
func fromPage(err error, token, what string) error {
	if status.Code(err) == codes.InvalidArgument && token != "" {
		return status.Errorf(codes.Aborted, "starting_token %q is not one of ours; start again without it", token)
	}
	return fromDaemon(err, "list %s", what)
}
