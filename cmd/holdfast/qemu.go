package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

const (
	formatRaw   = "raw"
	formatQcow2 = "qcow2"
	// qemuStopTimeout bounds the end of a qemu-img that is told to stop.
	qemuStopTimeout = 10 * time.Second
)

// imageFormat is the format of an image file: the one that was named, or the one
// that the file's name says. It is never guessed from the content: a raw disk may
// begin like a qcow2 file that reads some other file of this machine.
func imageFormat(named, file string) (string, error) {
	switch named {
	case formatRaw, formatQcow2:
		return named, nil
	case "":
	default:
		return "", usageError{fmt.Errorf("--format %s: want %s or %s", named, formatRaw, formatQcow2)}
	}
	switch {
	case strings.HasSuffix(file, ".raw"), strings.HasSuffix(file, ".img"):
		return formatRaw, nil
	case strings.HasSuffix(file, ".qcow2"):
		return formatQcow2, nil
	default:
		return "", usageError{fmt.Errorf("the name of %s does not say what it is: add --format %s or --format %s", file, formatRaw, formatQcow2)}
	}
}

// checkQemu finds qemu-img.
func checkQemu() error {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		return failure{
			code:    codes.FailedPrecondition,
			message: "the program qemu-img is not installed here",
			hint:    "it is in the package qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, RHEL)",
		}
	}
	return nil
}

// imageSize is the size in bytes of the disk that an image file holds. One that reads
// other files is refused.
func imageSize(ctx context.Context, format, file string) (int64, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return 0, failure{code: codes.NotFound, message: file + " does not exist"}
	}
	out, err := exec.CommandContext(ctx, "qemu-img", "info", "--output=json", "-f", format, imagePath(file)).Output()
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", file, saidBy(err))
	}
	var info struct {
		VirtualSize int64  `json:"virtual-size"`
		Backing     string `json:"backing-filename"`
		Specific    struct {
			Data struct {
				DataFile string `json:"data-file"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return 0, fmt.Errorf("look at %s: %w", file, err)
	}
	if other := info.Backing + info.Specific.Data.DataFile; other != "" {
		return 0, failure{
			code:    codes.FailedPrecondition,
			message: fmt.Sprintf("%s is not whole: it reads %s", file, other),
			hint:    fmt.Sprintf("if both are yours, make one of them: qemu-img convert -O qcow2 %s whole.qcow2", file),
		}
	}
	return info.VirtualSize, nil
}

// convert runs qemu-img convert and shows how far it is, of total bytes.
func (a *app) convert(ctx context.Context, label string, total int64, args ...string) error {
	cmd := exec.CommandContext(ctx, "qemu-img", append([]string{"convert", "-p"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = qemuStopTimeout
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start qemu-img: %w", err)
	}
	bar := newProgress(a.stderr, label)
	defer bar.end()
	scanner := bufio.NewScanner(stdout)
	scanner.Split(splitProgress)
	for scanner.Scan() {
		if percent, ok := parsePercent(scanner.Text()); ok {
			bar.show(int64(percent/100*float64(total)), total, "")
		}
	}
	switch err := cmd.Wait(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("qemu-img: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// splitProgress splits what qemu-img writes over and over into one line.
func splitProgress(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// parsePercent reads "    (12.34/100%)".
func parsePercent(line string) (float64, bool) {
	text, found := strings.CutSuffix(strings.TrimSpace(line), "/100%)")
	text, opened := strings.CutPrefix(text, "(")
	percent, err := strconv.ParseFloat(text, 64)
	return percent, found && opened && err == nil && percent >= 0 && percent <= 100
}

// saidBy is the error of a program with what it wrote.
func saidBy(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
