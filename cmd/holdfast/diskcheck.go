package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// checkView is the JSON of a check.
type checkView struct {
	Path            string      `json:"path"`
	Disk            string      `json:"disk"`
	Cluster         string      `json:"cluster"`
	Replicas        int         `json:"replicas"`
	VerifiedBytes   int64       `json:"verifiedBytes"`
	UnsettledBlocks int64       `json:"unsettledBlocks"`
	FaultCount      int         `json:"faultCount"`
	Faults          []faultView `json:"faults"`
}

// faultView is the JSON of a fault.
type faultView struct {
	File string `json:"file"`
	// Offset is -1 where the fault is no single place.
	Offset int64  `json:"offset"`
	What   string `json:"what"`
}

func (a *app) diskCheckCommand() *cobra.Command {
	var buffered bool
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Verify a disk that no daemon has open",
		Long: `Verify the disk in a directory of this machine: superblock, flush slots, journal,
metadata, the allocation against the maps, and every block against its checksum.
Nothing on it is changed, and a file system that is mounted read-only will do. The
daemon must not have the disk open; the check holds its lock.

Every fault is listed with its file and the byte in it. Exit code 1 says that there
are some. Blocks that were being written when the disk was left may differ from
their checksums; they are counted, and no fault: a resync settles them.`,
		Example: `  holdfast disk check /mnt/ssd1
  holdfast disk check /mnt/ssd1 -o json | jq -r '.faults[] | "\(.file) \(.offset)"'`,
		Args: args("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := a.verifyDisk(cmd.Context(), args[0], buffered)
			if err != nil {
				return localFailure(err)
			}
			view := newCheckView(args[0], found)
			if err := a.print(view, view); err != nil {
				return err
			}
			if view.FaultCount > 0 {
				return failure{code: codes.DataLoss, message: fmt.Sprintf("%d faults found on the disk in %s", view.FaultCount, args[0])}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&buffered, "buffered", false, "read through the page cache, where a file system cannot do without")
	return cmd
}

// verifyDisk verifies and, on a terminal, shows how far it is.
func (a *app) verifyDisk(ctx context.Context, path string, buffered bool) (*store.Verification, error) {
	var done, total atomic.Int64
	bar := newProgress(a.stderr, "check")
	ticker := time.NewTicker(spinInterval)
	defer ticker.Stop()
	type outcome struct {
		found *store.Verification
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		found, err := store.VerifyDisk(ctx, path, store.VerifyOptions{Buffered: buffered, Progress: func(d, n int64) {
			done.Store(d)
			total.Store(n)
		}})
		ended <- outcome{found, err}
	}()
	for {
		select {
		case o := <-ended:
			bar.end()
			return o.found, o.err
		case <-ticker.C:
			bar.show(done.Load(), total.Load(), "")
		}
	}
}

func newCheckView(path string, found *store.Verification) checkView {
	view := checkView{
		Path: path, Disk: found.Identity.Disk.String(), Cluster: found.Identity.Cluster.String(), Replicas: found.Replicas,
		VerifiedBytes: found.Blocks * block.BlockSize, UnsettledBlocks: found.Unsettled, FaultCount: found.Count, Faults: []faultView{},
	}
	for _, f := range found.Faults {
		view.Faults = append(view.Faults, faultView{File: f.File, Offset: f.Offset, What: f.What})
	}
	return view
}

func (v checkView) text(wide bool) string {
	text := details{
		{"Disk", v.Disk},
		{"Replicas", fmt.Sprint(v.Replicas)},
		{"Verified", formatSize(v.VerifiedBytes)},
		{"Unsettled", fmt.Sprintf("%d blocks", v.UnsettledBlocks)},
		{"Faults", fmt.Sprint(v.FaultCount)},
	}.text(wide)
	for _, f := range v.Faults {
		place := f.File
		if f.Offset >= 0 {
			place += fmt.Sprintf(", byte %d", f.Offset)
		}
		text += place + ": " + f.What + "\n"
	}
	if more := v.FaultCount - len(v.Faults); more > 0 {
		text += fmt.Sprintf("and %d more\n", more)
	}
	return text
}

// localFailure gives an error of this machine's disks the exit code of its kind.
func localFailure(err error) error {
	f := failure{code: codes.Internal, message: err.Error()}
	switch {
	case errors.Is(err, block.ErrNotFound):
		f.code, f.hint = codes.NotFound, "DIR is the directory of a disk: as it was given to disk add, or where its device is mounted, which holdfast disk show tells"
	case errors.Is(err, block.ErrInUse):
		f.code, f.hint = codes.FailedPrecondition, "stop the daemon first, or take the disk out of service"
	case errors.Is(err, block.ErrVersion):
		f.code = codes.FailedPrecondition
	case errors.Is(err, block.ErrInvalid):
		f.code = codes.InvalidArgument
	}
	return f
}

func (a *app) diskInspectCommand() *cobra.Command {
	names := store.Structures()
	list := ""
	for _, name := range names {
		list += "  " + name + "\n"
	}
	return &cobra.Command{
		Use:   "inspect DIR [STRUCTURE]",
		Short: "Print what lies on a disk that no daemon has open",
		Long: `Print a structure of the disk in a directory of this machine, as it lies there;
what is damaged is shown with what is wrong. Nothing on the disk is changed. The
daemon must not have it open. Structures, of which the first is the default:
` + list + `
-o json gives one object a line.`,
		Example: `  holdfast disk inspect /mnt/ssd1 replicas
  holdfast disk inspect /mnt/ssd1 map -o json | jq 'select(.extent == 17)'`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 2 {
				return nil
			}
			return args("DIR")(cmd, given)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			structure := names[0]
			if len(args) == 2 {
				structure = args[1]
			}
			if !slices.Contains(names, structure) {
				return usageError{fmt.Errorf("STRUCTURE %q: want one of %s", structure, strings.Join(names, ", "))}
			}
			if err := a.inspectDisk(args[0], structure); err != nil {
				return localFailure(err)
			}
			return nil
		},
	}
}

func (a *app) inspectDisk(path, structure string) error {
	inspector, err := store.Inspect(path)
	if err != nil {
		return err
	}
	return errors.Join(a.printStructure(inspector, structure), inspector.Close())
}

// printStructure prints JSON as it comes: a map may be larger than the memory.
func (a *app) printStructure(inspector *store.Inspector, structure string) error {
	titles, err := inspector.Columns(structure)
	if err != nil {
		return err
	}
	if a.output == formatJSON {
		encoder := json.NewEncoder(a.stdout)
		encoder.SetEscapeHTML(false)
		return inspector.Each(structure, func(r store.Record) error { return encoder.Encode(r) })
	}
	t := table{empty: "The disk has nothing of that."}
	for _, title := range titles {
		t.columns = append(t.columns, column{title: title})
	}
	if err := inspector.Each(structure, func(r store.Record) error {
		t.rows = append(t.rows, r.Row())
		return nil
	}); err != nil {
		return err
	}
	_, err = fmt.Fprint(a.stdout, t.text(true))
	return err
}
