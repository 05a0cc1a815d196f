package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fio runs fio(1).
type fio struct {
	// dir is for its output.
	dir string
}

// target is what fio is pointed at: engine and place.
type target []string

func fileTarget(path string) target {
	return target{"--ioengine=libaio", "--direct=1", "--filename=" + path}
}

// uringTarget is a file from the byte first on.
func uringTarget(path string, first int64) target {
	return target{"--ioengine=io_uring", "--direct=1", "--filename=" + path, "--offset=" + strconv.FormatInt(first, 10)}
}

func nbdTarget(uri string) target { return target{"--ioengine=nbd", "--uri=" + uri} }

// job is one load to put on a target.
type job struct {
	workload
	SizeBytes int64
	// Runtime zero: once over the whole size.
	Runtime time.Duration
	Seed    int
	// Rate is how many operations each second are made at most; 0 for no limit.
	Rate int
}

// args are the job in fio's terms.
func (j job) args(t target) []string {
	args := append([]string{
		"--name=bench", "--thread", "--group_reporting", "--eta=never", "--output-format=json",
		"--lat_percentiles=1", "--clat_percentiles=0",
		"--rw=" + j.Pattern,
		"--bs=" + strconv.FormatInt(j.BlockBytes, 10),
		"--iodepth=" + strconv.Itoa(j.depth()),
		"--size=" + strconv.FormatInt(j.SizeBytes, 10),
		"--randseed=" + strconv.Itoa(j.Seed), "--norandommap",
	}, t...)
	if j.Runtime > 0 {
		args = append(args, "--time_based", "--runtime="+strconv.FormatInt(int64(j.Runtime/time.Second), 10))
	} else {
		args = append(args, "--end_fsync=1")
	}
	if j.Rate > 0 {
		args = append(args, "--rate_iops="+strconv.Itoa(j.Rate))
	}
	if j.Flush {
		args = append(args, "--numjobs="+strconv.Itoa(j.Depth), t.flushArg())
	}
	return args
}

// depth is that of one job of fio: writers that flush are jobs.
func (j job) depth() int {
	if j.Flush {
		return 1
	}
	return j.Depth
}

// flushArg asks for the lightest flush that makes a write durable. The nbd engine
// knows only one.
func (t target) flushArg() string {
	if t[0] == "--ioengine=nbd" {
		return "--fsync=1"
	}
	return "--fdatasync=1"
}

// load is what fio says of a run.
type load struct {
	Operations int64
	// Rate is in operations each second.
	Rate     float64
	P50, P99 time.Duration
	// Average is the mean latency; zero where nobody asks for it.
	Average time.Duration
	// Allocations are those of Go's heap for one operation, where that is known.
	Allocations float64
	// ClientCPU is that of the thread which made the load; ProcessCPU that of all
	// who did.
	ClientCPU, ProcessCPU time.Duration
}

// endDelay is how long fio may take to end after a signal.
const endDelay = 5 * time.Second

// loads puts workloads on a target.
func (f fio) loads(t target, o options) func(context.Context, workload, int) (load, error) {
	return func(ctx context.Context, w workload, round int) (load, error) {
		return f.run(ctx, t, job{workload: w, SizeBytes: o.SizeBytes, Runtime: o.Runtime, Seed: round + 1})
	}
}

// fill writes a target to its last byte, so that what follows overwrites and reads what
// is there.
func (f fio) fill(ctx context.Context, t target, sizeBytes int64) error {
	_, err := f.run(ctx, t, job{
		workload: workload{Pattern: "write", BlockBytes: 1 << 20, Depth: 4}, SizeBytes: sizeBytes, Seed: 1,
	})
	return err
}

// run runs a job to its end.
func (f fio) run(ctx context.Context, t target, j job) (load, error) {
	output := filepath.Join(f.dir, "fio.json")
	cmd := exec.CommandContext(ctx, "fio", append(j.args(t), "--output="+output)...)
	cmd.Dir = f.dir
	cmd.WaitDelay = endDelay
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = childOfOurs()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return load{}, ctx.Err()
	}
	// What it says of itself is in the output, if it came that far.
	text, err := os.ReadFile(output)
	if runErr != nil {
		return load{}, fmt.Errorf("fio: %w: %s", runErr, lastLines(append(stderr.Bytes(), text...)))
	}
	if err != nil {
		return load{}, fmt.Errorf("read output of fio: %w", err)
	}
	l, err := parseLoad(text, j.workload)
	if err != nil {
		return load{}, fmt.Errorf("parse output of fio: %w", err)
	}
	l.ProcessCPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return l, nil
}

// childOfOurs: a child dies with this process, and signals of the terminal are not
// for it, since it is ended in order.
func childOfOurs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// lastLines is the end of a text that tells a person why.
func lastLines(text []byte) string {
	const lines = 8
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// The parts of fio's JSON that are used.
type (
	fioOutput struct {
		Jobs []fioJob `json:"jobs"`
	}
	fioJob struct {
		Error int      `json:"error"`
		Read  fioSide  `json:"read"`
		Write fioSide  `json:"write"`
		Sync  fioSide  `json:"sync"`
		User  float64  `json:"usr_cpu"`
		Sys   float64  `json:"sys_cpu"`
		Milli *float64 `json:"job_runtime"`
	}
	fioSide struct {
		Operations int64   `json:"total_ios"`
		Rate       float64 `json:"iops"`
		Latency    struct {
			Percentile map[string]float64 `json:"percentile"`
		} `json:"lat_ns"`
	}
)

// parseLoad reads fio's JSON, which may come after messages.
func parseLoad(text []byte, w workload) (load, error) {
	// A newline in front lets the first line be found like any other.
	_, after, found := bytes.Cut(append([]byte("\n"), text...), []byte("\n{"))
	if !found {
		return load{}, errors.New("no JSON in it")
	}
	var out fioOutput
	if err := json.Unmarshal(append([]byte("{"), after...), &out); err != nil {
		return load{}, err
	}
	if len(out.Jobs) != 1 {
		return load{}, fmt.Errorf("%d jobs instead of one", len(out.Jobs))
	}
	j := &out.Jobs[0]
	side := &j.Read
	if w.writes() {
		side = &j.Write
	}
	switch {
	case j.Error != 0:
		return load{}, fmt.Errorf("the job ended with error %d", j.Error)
	case side.Operations == 0 || side.Rate <= 0:
		return load{}, errors.New("no operation was done")
	case j.Milli == nil:
		return load{}, errors.New("no run time in it")
	}
	l := load{Operations: side.Operations, Rate: side.Rate}
	// Percentages of the run time of one thread, milliseconds.
	l.ClientCPU = time.Duration((j.User + j.Sys) / 100 * *j.Milli * float64(time.Millisecond))
	sides := []*fioSide{side}
	if w.Flush {
		sides = append(sides, &j.Sync)
	}
	for _, s := range sides {
		p50, ok50 := s.Latency.Percentile["50.000000"]
		p99, ok99 := s.Latency.Percentile["99.000000"]
		if !ok50 || !ok99 {
			return load{}, errors.New("no percentiles of latency in it")
		}
		l.P50 += time.Duration(p50)
		l.P99 += time.Duration(p99)
	}
	return l, nil
}
