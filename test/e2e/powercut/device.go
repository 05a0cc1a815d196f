package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// command runs a tool and returns what it prints.
func command(ctx context.Context, name string, arguments ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, arguments...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(arguments, " "), err, bytes.TrimSpace(out))
	}
	return string(bytes.TrimSpace(out)), nil
}

// all runs tools one after the other, each a line of words.
func all(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if _, err := command(ctx, words[0], words[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// sectorsOf is the size of a block device in 512-byte sectors.
func sectorsOf(ctx context.Context, device string) (string, error) {
	return command(ctx, "blockdev", "--getsz", device)
}

// mapped makes a device-mapper device and returns its path.
func mapped(ctx context.Context, name, table string) (string, error) {
	if _, err := command(ctx, "dmsetup", "create", name, "--table", table); err != nil {
		return "", err
	}
	return "/dev/mapper/" + name, nil
}

// makeFileSystem makes an ext4 or XFS on a device. It writes no more than it must.
func makeFileSystem(ctx context.Context, kind, device string) error {
	if kind == "ext4" {
		return all(ctx, "mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=0 "+device)
	}
	return all(ctx, "mkfs.xfs -q -f -K "+device)
}

// mount mounts a device on a new folder.
func mount(ctx context.Context, kind, device string) (string, error) {
	at, err := os.MkdirTemp("", "mount-")
	if err != nil {
		return "", fmt.Errorf("make a mount point: %w", err)
	}
	return at, all(ctx, fmt.Sprintf("mount -t %s %s %s", kind, device, at))
}
