// Package version tells which build this is.
package version

import (
	"runtime/debug"
	"strings"
)

// String is the version of the module the program was built from; "devel" for a
// build from a working tree that is no version.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return strings.Trim(info.Main.Version, "()")
}
