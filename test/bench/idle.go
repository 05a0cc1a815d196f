package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/vfs"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	// idleCores is what the volumes may cost in all, idleBytes what each may hold, in all
	// daemons together.
	idleCores = 0.05
	idleBytes = 1 << 20
	// idleVolumeBytes is the size of a volume, thin, so small that many fit on any disk.
	idleVolumeBytes = 64 << 20
	// settleMin is longer than an intent log waits before it is cleared; from then on the
	// daemons are watched for settleWindow at a time, until they use no less than
	// settledShare of what they used before, but for settleMax.
	settleMin    = 40 * time.Second
	settleWindow = 5 * time.Second
	settledShare = 0.9
	settleMax    = 2 * time.Minute
	// attachers attach volumes at the same time, so that the daemons have something to do.
	attachers = 8
)

// idleOptions are what the flags of bench idle say.
type idleOptions struct {
	options
	volumes int
	// profiles is a directory for profiles of the daemons; empty for none.
	profiles string
}

func parseIdleFlags(args []string) (idleOptions, error) {
	flags := flag.NewFlagSet("bench idle", flag.ContinueOnError)
	volumes := flags.Int("volumes", 500, "volumes with three replicas that are attached, written once, and left alone")
	runtime := flags.Duration("runtime", 30*time.Second, "how long the daemons are watched, before and after")
	dir := flags.String("dir", "/var/tmp", "where everything lies while it runs")
	output := flags.String("o", outputTable, "table, json or markdown")
	engine := flags.String("disk-io", string(vfs.EngineAuto), "how Holdfast reads and writes disks: auto, io_uring or threads")
	profiles := flags.String("profiles", "", "also write profiles of CPU, heap and goroutines of each daemon to this directory, after the watching")
	if err := flags.Parse(args); err != nil {
		return idleOptions{}, err
	}
	o := idleOptions{volumes: *volumes, profiles: *profiles, options: options{
		Rounds: 1, Runtime: *runtime, SizeBytes: idleVolumeBytes, Dir: *dir, Output: *output,
	}}
	var err error
	if o.Engine, err = vfs.ParseEngine(*engine); err != nil {
		return o, fmt.Errorf("-disk-io %w", err)
	}
	if o.volumes < 1 {
		return o, fmt.Errorf("-volumes %d: want at least 1", o.volumes)
	}
	return o, o.validate(flags.Args())
}

// idleState is what the daemons need, all of them together.
type idleState struct {
	// Cores is how many CPUs they kept busy, Others how many were busy otherwise.
	Cores  float64 `json:"cores"`
	Others float64 `json:"othersCores"`
	// Resident and Proportional are the memory of their processes, Heap what is alive in
	// Go's heaps, Stacks what goroutines have as stacks.
	Resident     float64 `json:"residentBytes"`
	Proportional float64 `json:"proportionalBytes"`
	Heap         float64 `json:"heapBytes"`
	Stacks       float64 `json:"stackBytes"`
	Goroutines   float64 `json:"goroutines"`
}

// idled is what a run of bench idle came to.
type idled struct {
	Host    hostFacts `json:"host"`
	Volumes int       `json:"volumes"`
	Seconds float64   `json:"seconds"`
	Without idleState `json:"without"`
	With    idleState `json:"with"`
}

// runIdle says what attached volumes cost while nobody uses them.
func runIdle(ctx context.Context, args []string) error {
	o, err := parseIdleFlags(args)
	if err != nil {
		return err
	}
	host, err := describeHost(ctx, o.Dir)
	if err != nil {
		return err
	}
	progress := newProgress(os.Stderr)
	s, err := newIdleStage(o)
	if err != nil {
		return err
	}
	result := idled{Host: host, Volumes: o.volumes, Seconds: o.Runtime.Seconds()}
	err = withStage(ctx, s, progress, func(ctx context.Context) error { return s.measure(ctx, progress, &result) })
	progress.end()
	if err != nil {
		return err
	}
	if err := writeReport(os.Stdout, o.Output, result, result.sheet()); err != nil {
		return err
	}
	return result.judge()
}

// idleStage has many volumes, each with a client.
type idleStage struct {
	*volumeStage
	idle idleOptions

	mu      sync.Mutex
	clients []*nbd.Client
}

func newIdleStage(o idleOptions) (*idleStage, error) {
	volumes, err := newVolumeStage(o.options)
	if err != nil {
		return nil, err
	}
	volumes.debug = true
	return &idleStage{volumeStage: volumes, idle: o}, nil
}

// measure watches the daemons before there are volumes, and with them.
func (s *idleStage) measure(ctx context.Context, p *progress, r *idled) (err error) {
	return runSteps(ctx, p, []step{
		{"building Holdfast and starting three daemons", s.startCluster},
		{"watching daemons without volumes", func(ctx context.Context) error {
			r.Without, err = s.watch(ctx)
			return err
		}},
		{fmt.Sprintf("attaching volumes with three replicas and a client each: %d", s.idle.volumes), s.attachAll},
		{"waiting for the daemons to settle", s.settle},
		{"watching them", func(ctx context.Context) error {
			r.With, err = s.watch(ctx)
			return err
		}},
		{"looking whether all replicas are in sync", s.checkAll},
		{"profiling", s.profileAll},
	})
}

// strike also ends the clients.
func (s *idleStage) strike(ctx context.Context) error {
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errors.Join(errs...), s.volumeStage.strike(ctx))
}

// attachAll makes all volumes, spread over the nodes.
func (s *idleStage) attachAll(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var working sync.WaitGroup
	for range attachers {
		working.Go(func() {
			for i := range next {
				if err := s.attachOne(ctx, i); err != nil {
					cancel(fmt.Errorf("volume %d: %w", i, err))
				}
			}
		})
	}
	for i := range s.idle.volumes {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	working.Wait()
	return context.Cause(ctx)
}

// attachOne makes a volume, attaches it, connects a client, and writes a block and reads
// it: only then is everything made that a volume in use has.
func (s *idleStage) attachOne(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	node := s.cluster.Nodes[i%len(s.cluster.Nodes)]
	made, err := node.Volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
		Name: fmt.Sprintf("idle-%d", i), SizeBytes: idleVolumeBytes, Parameters: &holdfastv1.VolumeParameters{Replicas: 3},
	})
	if err != nil {
		return fmt.Errorf("create volume: %w", err)
	}
	dial, err := node.Attach(ctx, made.GetId())
	if err != nil {
		return err
	}
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	client, err := nbd.Connect(ctx, conn, nbd.ClientConfig{MaxInFlight: 1})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.clients = append(s.clients, client)
	s.mu.Unlock()
	b := make([]byte, block.BlockSize)
	b[0] = 1
	if _, err := client.WriteAt(b, 0); err != nil {
		return err
	}
	_, err = client.ReadAt(b, 0)
	return err
}

// settle lets the daemons end what the attaching has begun.
func (s *idleStage) settle(ctx context.Context) error {
	before := -1.0
	for began := time.Now(); time.Since(began) < settleMax; {
		state, err := s.cores(ctx, settleWindow)
		if err != nil {
			return err
		}
		if time.Since(began) >= settleMin && state.Cores >= settledShare*before {
			return nil
		}
		before = state.Cores
	}
	return fmt.Errorf("after %v the daemons use less and less CPU still: attach fewer volumes (-volumes)", settleMax)
}

// cores looks for a while how busy the daemons are.
func (s *idleStage) cores(ctx context.Context, length time.Duration) (idleState, error) {
	used, machine, err := s.cpu()
	if err != nil {
		return idleState{}, err
	}
	began := time.Now()
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return idleState{}, ctx.Err()
	}
	usedAfter, machineAfter, err := s.cpu()
	seconds := time.Since(began).Seconds()
	own := (usedAfter - used).Seconds()
	return idleState{Cores: own / seconds, Others: max(0, (machineAfter-machine).Seconds()-own) / seconds}, err
}

// cpu is what the daemons, and what everything on the machine has used.
func (s *idleStage) cpu() (daemons, machine time.Duration, err error) {
	if daemons, err = s.cluster.CPU(); err != nil {
		return 0, 0, err
	}
	machine, err = machineCPU()
	return daemons, machine, err
}

// watch tells what the daemons need. Memory is looked at first as it has become, and then
// what of the heap is alive, since that takes a collection.
func (s *idleStage) watch(ctx context.Context) (idleState, error) {
	state, err := s.cores(ctx, s.idle.Runtime)
	if err != nil {
		return idleState{}, err
	}
	memory, err := harness.MemoryOf(s.daemons())
	if err != nil {
		return idleState{}, err
	}
	state.Resident, state.Proportional = float64(memory.Resident), float64(memory.Proportional)
	for _, n := range s.cluster.Nodes {
		if err := s.fetch(ctx, n, "heap?gc=1", io.Discard); err != nil {
			return idleState{}, err
		}
		for name, sum := range map[string]*float64{
			"go_memstats_heap_alloc_bytes": &state.Heap, "go_memstats_stack_inuse_bytes": &state.Stacks, "go_goroutines": &state.Goroutines,
		} {
			value, err := n.Metric(ctx, http.DefaultClient, name)
			if err != nil {
				return idleState{}, err
			}
			*sum += value
		}
	}
	return state, nil
}

// fetch reads a profile of a daemon.
func (s *idleStage) fetch(ctx context.Context, n *harness.Node, name string, to io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.DebugAddress+"/debug/pprof/"+name, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("profile %s of %s: %w", name, n.Name, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("profile %s of %s: %s: %w", name, n.Name, response.Status, block.ErrUnavailable)
	}
	if _, err = io.Copy(to, response.Body); err != nil {
		return fmt.Errorf("profile %s of %s: %w", name, n.Name, err)
	}
	return nil
}

// checkAll: volumes that have lost a replica would be cheaper.
func (s *idleStage) checkAll(ctx context.Context) error {
	list, err := s.cluster.Nodes[0].Volumes().ListVolumes(ctx, &holdfastv1.ListVolumesRequest{})
	if err != nil {
		return fmt.Errorf("look at the volumes: %w", err)
	}
	whole := 0
	for _, v := range list.GetVolumes() {
		inSync := 0
		for _, r := range v.GetReplicas() {
			if r.GetInSync() {
				inSync++
			}
		}
		if inSync == 3 && v.GetAttachmentId() != "" {
			whole++
		}
	}
	if whole != s.idle.volumes {
		return fmt.Errorf("%d of %d volumes are attached with three replicas in sync: the figures are void; the logs end with\n%s",
			whole, s.idle.volumes, s.cluster.LogTails())
	}
	return nil
}

// profileAll writes profiles of all daemons at the same time, if they are wanted.
func (s *idleStage) profileAll(ctx context.Context) error {
	if s.idle.profiles == "" {
		return nil
	}
	if err := os.MkdirAll(s.idle.profiles, 0o750); err != nil {
		return err
	}
	errs := make([]error, len(s.cluster.Nodes))
	var working sync.WaitGroup
	for i, n := range s.cluster.Nodes {
		working.Go(func() {
			for file, name := range map[string]string{"cpu": "profile?seconds=10", "heap": "heap?gc=1", "goroutine": "goroutine"} {
				errs[i] = errors.Join(errs[i], s.keep(ctx, n, name, filepath.Join(s.idle.profiles, n.Name+"-"+file+".pb.gz")))
			}
		})
	}
	working.Wait()
	return errors.Join(errs...)
}

func (s *idleStage) keep(ctx context.Context, n *harness.Node, name, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(s.fetch(ctx, n, name, file), file.Close())
}
