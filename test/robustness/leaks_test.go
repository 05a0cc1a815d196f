package robustness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/test/harness"
	"github.com/holdfast-io/holdfast/test/harness/links"
)

// leaks are what a cluster may leave behind, each planted in a directory and taken
// away again by the cleaning of its test.
var leaks = map[string]struct {
	finding string
	plant   func(t *testing.T, dir string)
}{
	"file": {"", func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "file"))
	}},
	"process": {"process ", func(t *testing.T, dir string) {
		cmd := exec.CommandContext(t.Context(), "sleep", "600")
		cmd.Args[0] = filepath.Join(dir, "holdfastd")
		startUntilEnd(t, cmd, cmd.Args[0])
	}},
	"open deleted file": {"(deleted)", func(t *testing.T, dir string) {
		file, err := os.Create(filepath.Join(dir, "data"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}},
	"mount": {"mountinfo", func(t *testing.T, dir string) {
		mount(t, filepath.Join(dir, "disk"))
	}},
	"mount in another namespace": {"mountinfo", func(t *testing.T, dir string) {
		at := filepath.Join(dir, "disk")
		mkdir(t, at)
		startUntilEnd(t, exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c",
			`mount -t tmpfs none "$0" && exec sleep 600`, at), "sleep")
	}},
	"loop device": {"backing_file", func(t *testing.T, dir string) {
		image := filepath.Join(dir, "disk.img")
		write(t, image)
		if err := os.Truncate(image, mebibyte); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", image).Output()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := exec.CommandContext(context.Background(), "losetup", "--detach", strings.TrimSpace(string(out))).Run(); err != nil {
				t.Error(err)
			}
		})
	}},
	"unix socket": {"net/unix", func(t *testing.T, dir string) {
		var config net.ListenConfig
		listener, err := config.Listen(t.Context(), "unix", filepath.Join(dir, "sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
	}},
	"device": {"/dev/", func(t *testing.T, dir string) {
		path := "/dev/" + filepath.Base(dir) + "-n1"
		mkdir(t, path)
		t.Cleanup(func() { os.RemoveAll(path) })
	}},
	"nftables": {links.CutTable, func(t *testing.T, _ string) {
		if out, err := exec.CommandContext(t.Context(), "nft", "add", "table", "inet", links.CutTable).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}},
}

// TestLeftBehind plants each kind of leak, and shows that nothing is found where
// nothing was left.
func TestLeftBehind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts and namespaces need root, which make test has")
	}
	namespace, err := links.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	none := filepath.Join(t.TempDir(), "none")
	if left, err := leftBehind(none, nil); err != nil || len(left) > 0 {
		t.Errorf("of nothing %v is left, %v", left, err)
	}
	for name, leak := range leaks {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/var/tmp", "holdfast-leak-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			var left []string
			// On a network of the test's own, so that nobody else's is touched.
			err = links.On(namespace, func() error {
				leak.plant(t, dir)
				left, err = leftBehind(dir, nil)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, line := range left {
				found = found || strings.Contains(line, leak.finding)
			}
			if !found {
				t.Errorf("found is only %q", left)
			}
		})
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func mount(t *testing.T, path string) {
	t.Helper()
	mkdir(t, path)
	if err := unix.Mount("none", path, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
}

// startUntilEnd starts a process and waits until it goes by that name.
func startUntilEnd(t *testing.T, cmd *exec.Cmd, name string) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it runs until then
		_ = cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := harness.Wait(ctx, "a process named "+name, func(context.Context) error {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		if err == nil && !strings.HasPrefix(string(line), name) {
			err = fmt.Errorf("it is named %q", line)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
