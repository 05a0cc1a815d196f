package driver

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// maxReplicas is the largest replica count that a volume may have.
	maxReplicas = 5
	// defaultSnapshots is how many snapshots a volume may have unless its class says
	// otherwise, maxSnapshots the most that it can say.
	defaultSnapshots = 250
	maxSnapshots     = 10_000
)

// parameter is one key of a StorageClass. The table of them is the only place
// where they are known: requests are read by it and docs/parameters.md is written
// from it.
type parameter struct {
	name, values, preset, meaning string
	// mutable: it may be changed later.
	mutable bool
	set     func(p *holdfastv1.VolumeParameters, value string) error
}

// parameters is the table.
func parameters() []parameter {
	return []parameter{
		{
			name: "replicas", values: "1 to 5", preset: "3",
			meaning: "Copies of the volume, each on another node.",
			set: func(p *holdfastv1.VolumeParameters, value string) (err error) {
				p.Replicas, err = parseCount(value, maxReplicas)
				return err
			},
		},
		{
			name: "minInSync", values: "1 to `replicas`", preset: "1",
			meaning: "In-sync copies that a write needs. After failures that leave fewer, " +
				"writes wait until a copy is back, and reads go on.",
			set: func(p *holdfastv1.VolumeParameters, value string) (err error) {
				p.MinInSync, err = parseCount(value, maxReplicas)
				return err
			},
		},
		{
			name: "diskClass", values: "`nvme`, `ssd` or `hdd`", preset: "any",
			meaning: "Class that the disks must have.",
			set: func(p *holdfastv1.VolumeParameters, value string) error {
				if !slices.Contains([]string{"nvme", "ssd", "hdd"}, value) {
					return fmt.Errorf("%q is none of nvme, ssd, hdd", value)
				}
				p.DiskClass = value
				return nil
			},
		},
		{
			name: "diskTags", values: "names, separated by commas", preset: "none",
			meaning: "Tags that a disk must have, all of them.",
			set: func(p *holdfastv1.VolumeParameters, value string) (err error) {
				p.DiskTags, err = parseTags(value)
				return err
			},
		},
		{
			name: "nodeTags", values: "names, separated by commas", preset: "none",
			meaning: "Tags that the node of a copy must have, all of them.",
			set: func(p *holdfastv1.VolumeParameters, value string) (err error) {
				p.NodeTags, err = parseTags(value)
				return err
			},
		},
		{
			name: "maxSnapshots", values: "1 to 10000", preset: "250",
			meaning: "Snapshots that the volume may have at a time.",
			set: func(p *holdfastv1.VolumeParameters, value string) (err error) {
				p.MaxSnapshots, err = parseCount(value, maxSnapshots)
				return err
			},
		},
		{
			name: "maxSnapshotSpace", values: "a size such as `20Gi`, 1% to 1000% of the volume, or `none`", preset: "none", mutable: true,
			meaning: "What snapshots of the volume may hold that it does not have any more. Once they hold as much, " +
				"no further one is taken until some are deleted.",
			set: func(p *holdfastv1.VolumeParameters, value string) (err error) {
				p.MaxSnapshotSpace, err = parseLimit(value)
				return err
			},
		},
	}
}

// metadataPrefixes are keys that the external-provisioner adds when it runs with
// --extra-create-metadata. They name the claim and change nothing.
func metadataPrefixes() []string {
	return []string{"csi.storage.k8s.io/pvc/", "csi.storage.k8s.io/pv/"}
}

// parseParameters reads the parameters of a CreateVolume request.
func parseParameters(given map[string]string) (*holdfastv1.VolumeParameters, error) {
	p := &holdfastv1.VolumeParameters{Replicas: 3, MinInSync: 1}
	table := parameters()
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if slices.ContainsFunc(metadataPrefixes(), func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			continue
		}
		i := slices.IndexFunc(table, func(known parameter) bool { return known.name == key })
		if i < 0 {
			return nil, invalid("unknown parameter %q; known are %s", key, knownParameters())
		}
		if err := table[i].set(p, given[key]); err != nil {
			return nil, invalid("parameter %s: %v", key, err)
		}
	}
	if p.GetMinInSync() > p.GetReplicas() {
		return nil, invalid("parameter minInSync: %d is more than the %d replicas", p.GetMinInSync(), p.GetReplicas())
	}
	return p, nil
}

func knownParameters() string { return namesOf(parameters()) }

func namesOf(table []parameter) string {
	var names []string
	for _, p := range table {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func parseCount(value string, limit int32) (int32, error) {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil || n < 1 || n > int64(limit) {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", value, limit)
	}
	return int32(n), nil
}

// parseTags reads a list without order, so that two spellings of one set make one
// volume.
func parseTags(value string) ([]string, error) {
	var tags []string
	for tag := range strings.SplitSeq(value, ",") {
		if tag = strings.TrimSpace(tag); tag == "" {
			return nil, fmt.Errorf("%q has an empty name", value)
		}
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

// sameParameters reports whether two volumes are made alike.
func sameParameters(a, b *holdfastv1.VolumeParameters) bool {
	sameSet := func(x, y []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y)))
	}
	snapshots := func(p *holdfastv1.VolumeParameters) int32 { return cmp.Or(p.GetMaxSnapshots(), defaultSnapshots) }
	return a.GetReplicas() == b.GetReplicas() && a.GetMinInSync() == b.GetMinInSync() && snapshots(a) == snapshots(b) &&
		a.GetDiskClass() == b.GetDiskClass() && sameLimit(a.GetMaxSnapshotSpace(), b.GetMaxSnapshotSpace()) &&
		sameSet(a.GetDiskTags(), b.GetDiskTags()) && sameSet(a.GetNodeTags(), b.GetNodeTags())
}

// WriteParameters writes docs/parameters.md.
func WriteParameters(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Parameters of a StorageClass\n\n" +
		"Generated from the table in `driver/params.go`; the test beside it keeps the two alike.\n\n" +
		"| parameter | values | default | meaning |\n| --- | --- | --- | --- |\n")
	for _, p := range parameters() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.name, p.values, p.preset, p.meaning)
	}
	b.WriteString("\nAny other parameter is refused, so that a misspelt one cannot go unnoticed. " +
		"Parameters are fixed when a volume is created, but for `maxSnapshotSpace`, which a VolumeAttributesClass " +
		"(or `holdfast volume set`) changes at any time.\n\n" +
		"The file system is chosen by `csi.storage.k8s.io/fstype`: `ext4`, which is also the default, " +
		"or `xfs`, whose volumes have 300 MiB at least. `volumeMode: Block` gives the device itself.\n\n" +
		"A VolumeSnapshotClass takes no parameters.\n\n" +
		"```yaml\n" +
		"apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: holdfast-fast\n" +
		"provisioner: " + Name + "\nparameters:\n  replicas: \"3\"\n  minInSync: \"2\"\n  diskClass: nvme\n" +
		"```\n\n" +
		"```yaml\n" +
		"apiVersion: storage.k8s.io/v1\nkind: VolumeAttributesClass\nmetadata:\n  name: holdfast-half-for-snapshots\n" +
		"driverName: " + Name + "\nparameters:\n  maxSnapshotSpace: 50%\n" +
		"```\n")
	_, err := io.WriteString(w, b.String())
	return err
}
