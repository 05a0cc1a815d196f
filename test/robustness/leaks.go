package robustness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-io/holdfast/test/harness/links"
)

// leftBehind lists what is still there of a cluster that has been taken away:
// processes, mounts, loop devices and files that name its directory, devices named
// after it, and its network namespaces.
func leftBehind(dir string, namespaces []uint64) ([]string, error) {
	var left []string
	var errs []error
	for _, look := range []func() ([]string, error){
		func() ([]string, error) { return processesNaming(dir) },
		func() ([]string, error) { return linesNaming("/proc/self/mountinfo", dir) },
		func() ([]string, error) { return loopsOf(dir) },
		func() ([]string, error) { return filepath.Glob(dir) },
		func() ([]string, error) { return filepath.Glob("/dev/" + filepath.Base(dir) + "*") },
		func() ([]string, error) { return linesNaming("/proc/net/unix", dir) },
		func() ([]string, error) { return namespacesLeft(namespaces) },
	} {
		found, err := look()
		left = append(left, found...)
		errs = append(errs, err)
	}
	return left, errors.Join(errs...)
}

// processesNaming are the processes whose command line names dir.
func processesNaming(dir string) ([]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && bytes.Contains(line, []byte(dir)) {
			found = append(found, "process "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found, nil
}

func linesNaming(file, dir string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, dir+"/") {
			found = append(found, file+": "+strings.TrimSpace(line))
		}
	}
	return found, nil
}

func loopsOf(dir string) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(backing), dir+"/") {
			found = append(found, file+": "+strings.TrimSpace(string(backing)))
		}
	}
	return found, nil
}

// namespacesLeft are those of the namespaces that a process is in or holds open.
func namespacesLeft(inodes []uint64) ([]string, error) {
	found, err := links.Left(inodes)
	var text []string
	for _, inode := range found {
		text = append(text, fmt.Sprintf("network namespace %d", inode))
	}
	return text, err
}
