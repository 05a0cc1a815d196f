package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

// Contenders of the frontend's benchmark.
const (
	nbdkitMemory   = "nbdkit"
	frontendMemory = "frontend"
)

// frontendTitles are they in the order of the report.
var frontendTitles = [...]titled{
	{nbdkitMemory, "nbdkit memory"},
	{frontendMemory, "Holdfast's NBD server"},
}

// frontendWorkloads are what the NBD server promises a ratio for. At depth 1 a request is
// two switches between processes, and Go's scheduler is part of them.
func frontendWorkloads() []workload {
	var all []workload
	for _, w := range workloads() {
		if w.Pattern != "randread" && w.Pattern != "randwrite" || w.Flush || w.Durable {
			continue
		}
		if w.Target = 1; w.Depth == 1 {
			w.Target = 0.5
		}
		all = append(all, w)
	}
	return all
}

// frontendStage has NBD servers in front of nothing but memory.
type frontendStage struct {
	options    options
	dir        string
	fio        fio
	servers    []*exec.Cmd
	contenders []contender
}

// frontendSetting implements setting.
func frontendSetting(o options) (stage, error) {
	if err := wantTools(map[string]string{"fio": "fio", "nbdkit": "nbdkit"}); err != nil {
		return nil, err
	}
	// Short, because of the limit on paths of sockets.
	dir, err := os.MkdirTemp(o.Dir, "hf-bench-")
	if err != nil {
		return nil, err
	}
	return &frontendStage{options: o, dir: dir, fio: fio{dir: dir}}, nil
}

// set implements stage.
func (s *frontendStage) set(ctx context.Context, p *progress) error {
	return runSteps(ctx, p, []step{
		{"looking for fio's nbd engine", checkFio},
		{"starting nbdkit", s.addNbdkit},
		{"starting our NBD server", s.addOurs},
	})
}

func (s *frontendStage) all() []contender { return s.contenders }

// add starts a server and writes its memory to the last byte, so that the kernel has given
// it all.
func (s *frontendStage) add(ctx context.Context, c contender, cmd *exec.Cmd) error {
	if err := startServer(ctx, s.dir, c.Name, cmd); err != nil {
		return err
	}
	s.servers = append(s.servers, cmd)
	t := socketTarget(s.dir, c.Name)
	c.pids, c.load = processOf(cmd), s.fio.loads(t, s.options)
	s.contenders = append(s.contenders, c)
	return s.fio.fill(ctx, t, s.options.SizeBytes)
}

func (s *frontendStage) addNbdkit(ctx context.Context) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "nbdkit", "--foreground", "--unix", socketPath(s.dir, nbdkitMemory),
		"memory", strconv.FormatInt(s.options.SizeBytes, 10))
	return s.add(ctx, contender{Name: nbdkitMemory}, cmd)
}

// addOurs starts this program once more.
func (s *frontendStage) addOurs(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, memoryWord, socketPath(s.dir, frontendMemory),
		strconv.FormatInt(s.options.SizeBytes, 10))
	questions, questionsErr := cmd.StdinPipe()
	answers, answersErr := cmd.StdoutPipe()
	if err := errors.Join(questionsErr, answersErr); err != nil {
		return err
	}
	lines := bufio.NewReader(answers)
	return s.add(ctx, contender{
		Name: frontendMemory, allocations: func(context.Context) (float64, error) { return askAllocations(questions, lines) },
	}, cmd)
}

// strike implements stage.
func (s *frontendStage) strike(context.Context) error {
	var errs []error
	for _, cmd := range s.servers {
		errs = append(errs, endServer(cmd))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
