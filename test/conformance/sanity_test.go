package conformance

import (
	"crypto/rand"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"

	"github.com/holdfast-io/holdfast/test/harness"
)

const skipsFile = "testdata/skips.txt"

var update = flag.Bool("update", false, "take tests that are no longer skipped out of "+skipsFile)

// TestSanity runs csi-sanity twice over one cluster: with volumes used as file
// systems and with raw devices.
func TestSanity(t *testing.T) {
	cluster := newCluster(t)
	for _, access := range []string{"mount", "block"} {
		ginkgo.Describe(access, func() {
			config := sanityConfig(cluster, access)
			sanity.GinkgoTest(&config)
		})
	}
	var skipped []string
	ginkgo.ReportAfterSuite("remember what was skipped", func(report ginkgo.Report) {
		skipped = skippedSpecs(report)
	})
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	// Each test counts on nobody else making volumes.
	suite.RandomizeAllSpecs = false
	reporter.Succinct, reporter.NoColor = true, true
	ginkgo.RunSpecs(t, "csi-sanity", suite, reporter)
	compareSkips(t, skipped)
}

func sanityConfig(cluster *harness.Cluster, access string) sanity.TestConfig {
	config := sanity.NewTestConfig()
	// Not the first node, which began as the leader: what it is asked is forwarded.
	config.Address = "unix://" + cluster.Nodes[1].PluginSocket
	config.TargetPath = filepath.Join(cluster.Dir, "target")
	config.StagingPath = filepath.Join(cluster.Dir, "staging")
	config.TestVolumeSize = 64 * mib
	config.TestVolumeAccessType = access
	config.TestVolumeParameters = map[string]string{"replicas": "3", "minInSync": "2"}
	config.TestVolumeMutableParameters = map[string]string{"maxSnapshotSpace": "50%"}
	config.TestInvalidListVolumesStartingToken = "no-token-of-ours"
	config.IDGen = idGenerator{}
	return config
}

// idGenerator makes IDs that look like ours and name nothing.
type idGenerator struct{}

func (idGenerator) GenerateUniqueValidVolumeID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err)
	}
	return hex.EncodeToString(id[:])
}

func (idGenerator) GenerateInvalidVolumeID() string { return "no-volume-of-ours" }

func (g idGenerator) GenerateUniqueValidNodeID() string { return g.GenerateUniqueValidVolumeID() }

func (idGenerator) GenerateInvalidNodeID() string { return "no-node-of-ours" }

// skippedSpecs names the tests that did not run, with the reason, once for both
// kinds of volumes.
func skippedSpecs(report ginkgo.Report) []string {
	var names []string
	for _, spec := range report.SpecReports {
		if spec.LeafNodeType == types.NodeTypeIt && spec.State.Is(types.SpecStateSkipped|types.SpecStatePending) {
			reason := spec.Failure.Message
			if spec.State == types.SpecStatePending {
				reason = "switched off by csi-sanity itself"
			}
			// The outermost container is the kind.
			name := strings.Join(append(spec.ContainerHierarchyTexts[1:], spec.LeafNodeText), " ")
			names = append(names, name+": "+reason)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// compareSkips fails unless exactly the tests of the list were skipped.
func compareSkips(t *testing.T, skipped []string) {
	t.Helper()
	data, err := os.ReadFile(skipsFile)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
	added, gone := without(skipped, known), without(known, skipped)
	if len(added) > 0 {
		t.Errorf("skipped, but not in %s, which may only shrink:\n%s", skipsFile, strings.Join(added, "\n"))
	}
	switch {
	case len(gone) == 0:
	case *update:
		left := strings.Join(without(known, gone), "\n") + "\n"
		if err := os.WriteFile(skipsFile, []byte(left), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("no longer skipped, take them out of %s (go test -update does):\n%s", skipsFile, strings.Join(gone, "\n"))
	}
}

// without is what is in list and not in other.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(name string) bool { return slices.Contains(other, name) })
}

// TestSkipsAreCompared: a test that is skipped anew and one that is skipped no
// longer are both seen.
func TestSkipsAreCompared(t *testing.T) {
	known, skipped := []string{"a", "b", "c"}, []string{"b", "c", "d"}
	if added := without(skipped, known); !slices.Equal(added, []string{"d"}) {
		t.Errorf("skipped anew: %v", added)
	}
	if gone := without(known, skipped); !slices.Equal(gone, []string{"a"}) {
		t.Errorf("skipped no longer: %v", gone)
	}
}
