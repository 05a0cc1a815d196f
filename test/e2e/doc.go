// Package e2e tests Holdfast under a real kernel. Its tests are built with the tag
// e2e and run by `make e2e`, which first sees to it that a guest exists (test/e2e/vm).
//
// A test is a shell script in scripts/, run in a guest of its own with the static
// binaries it needs beside it. The script does the work and prints what it does; a
// non-zero exit code is the test's failure. The Go side builds the binaries, bounds
// the time and reports. Nothing outlives the guest, whose processes and memory end
// with it.
package e2e
