package robustness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/test/harness/links"
)

// leftBehind lists what is still there of a cluster that has been taken away: what
// names its directory of processes, of the files they hold open, of mounts in any
// mount namespace (FUSE ones, too), of loop devices and of files; devices named
// after it, and its network namespaces, with which its interfaces, nftables and
// sockets go. Outside of those it must have made no socket and no table.
func leftBehind(dir string, namespaces []links.Identity) ([]string, error) {
	var left []string
	var errs []error
	for _, look := range []func() ([]string, error){
		func() ([]string, error) { return processesNaming(dir) },
		func() ([]string, error) { return filesHeldBelow(dir) },
		func() ([]string, error) { return mountsNaming(dir) },
		func() ([]string, error) { return loopsOf(dir) },
		func() ([]string, error) { return filepath.Glob(dir) },
		func() ([]string, error) { return filepath.Glob("/dev/" + filepath.Base(dir) + "*") },
		func() ([]string, error) { return linesNaming("/proc/thread-self/net/unix", dir) },
		func() ([]string, error) { return namespacesLeft(namespaces) },
		func() ([]string, error) { return tablesNamed(links.CutTable) },
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

// filesHeldBelow are the files below dir, deleted ones included, that a process
// holds open, works in or is run from.
func filesHeldBelow(dir string) ([]string, error) {
	var found []string
	for _, pattern := range []string{"/proc/[0-9]*/fd/*", "/proc/[0-9]*/cwd", "/proc/[0-9]*/exe", "/proc/[0-9]*/root"} {
		links, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, link := range links {
			// What has just been closed cannot be read, and is not left.
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+"/") {
				found = append(found, link+": "+target)
			}
		}
	}
	return found, nil
}

// mountsNaming are the mounts that some process sees.
func mountsNaming(dir string) ([]string, error) {
	tables, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	seen := map[string]bool{}
	for _, table := range tables {
		namespace, err := os.Readlink(filepath.Join(filepath.Dir(table), "ns", "mnt"))
		if err != nil || seen[namespace] {
			continue
		}
		lines, err := linesNaming(table, dir)
		if err != nil {
			continue // the process is gone; another one may show the same mounts
		}
		seen[namespace] = true
		found = append(found, lines...)
	}
	return found, nil
}

// tablesNamed are the nftables of that name in the namespace of the test.
func tablesNamed(name string) ([]string, error) {
	out, err := exec.CommandContext(context.Background(), "nft", "list", "tables").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil // a guest, where nobody can make one
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w: %s", err, out)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if slices.Contains(strings.Fields(line), name) {
			found = append(found, strings.TrimSpace(line))
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
func namespacesLeft(all []links.Identity) ([]string, error) {
	found, err := links.Left(all)
	var text []string
	for _, id := range found {
		text = append(text, id.String())
	}
	return text, err
}
