package driver

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

var update = flag.Bool("update", false, "write the generated documents anew")

func TestParseParameters(t *testing.T) {
	for name, test := range map[string]struct {
		given map[string]string
		want  *holdfastv1.VolumeParameters
	}{
		"none": {nil, &holdfastv1.VolumeParameters{Replicas: 3, MinInSync: 1}},
		"all": {
			map[string]string{
				"replicas": "5", "minInSync": "2", "diskClass": "nvme",
				"diskTags": "b, a,b", "nodeTags": "rack1", "maxSnapshots": "1000",
				"maxSnapshotSpace": "50%",
			},
			&holdfastv1.VolumeParameters{
				Replicas: 5, MinInSync: 2, DiskClass: "nvme",
				DiskTags: []string{"a", "b"}, NodeTags: []string{"rack1"}, MaxSnapshots: 1000,
				MaxSnapshotSpace: &holdfastv1.SpaceLimit{Percent: 50},
			},
		},
		"those of the provisioner": {
			map[string]string{
				"csi.storage.k8s.io/pvc/name": "claim", "csi.storage.k8s.io/pvc/namespace": "default",
				"csi.storage.k8s.io/pv/name": "pvc-1",
			},
			&holdfastv1.VolumeParameters{Replicas: 3, MinInSync: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseParameters(test.given)
			if err != nil || !proto.Equal(got, test.want) {
				t.Errorf("read as %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

// TestDefaultsAreTheSameParameters: the daemon shows what it takes for granted as 0.
func TestDefaultsAreTheSameParameters(t *testing.T) {
	asked, err := parseParameters(map[string]string{"maxSnapshots": "250"})
	if shown := (&holdfastv1.VolumeParameters{Replicas: 3, MinInSync: 1}); err != nil || !sameParameters(asked, shown) {
		t.Errorf("%v is not %v, %v", asked, shown, err)
	}
	if other, err := parseParameters(map[string]string{"maxSnapshots": "251"}); err != nil || sameParameters(asked, other) {
		t.Errorf("%v is %v, %v", asked, other, err)
	}
}

func TestRefusedParameters(t *testing.T) {
	for _, test := range []struct{ key, value, message string }{
		{"replica", "3", `unknown parameter "replica"; known are replicas, minInSync, diskClass, diskTags, nodeTags, maxSnapshots, maxSnapshotSpace`},
		{"maxSnapshots", "0", "from 1 to 10000"},
		{"maxSnapshots", "10001", "from 1 to 10000"},
		{"Replicas", "3", "unknown parameter"},
		{"replicas", "0", `parameter replicas: "0" is not a number from 1 to 5`},
		{"replicas", "6", "from 1 to 5"},
		{"replicas", "three", "from 1 to 5"},
		{"replicas", "", "from 1 to 5"},
		{"minInSync", "4", "4 is more than the 3 replicas"},
		{"diskClass", "tape", "none of nvme, ssd, hdd"},
		{"diskTags", "a,,b", "empty name"},
		{"csi.storage.k8s.io/fstype", "xfs", "unknown parameter"},
	} {
		_, err := parseParameters(map[string]string{test.key: test.value})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), test.message) {
			t.Errorf("%s=%q answers %v, want InvalidArgument with %q", test.key, test.value, err, test.message)
		}
	}
}

func TestParametersDocument(t *testing.T) {
	const path = "../docs/parameters.md"
	var want bytes.Buffer
	if err := WriteParameters(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not what the table says; run: go test ./driver -run TestParametersDocument -update", path)
	}
}
