package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestProgressOfQemu(t *testing.T) {
	const written = "    (0.00/100%)\r    (1.01/100%)\r    (99.50/100%)\r    (100.00/100%)\r\nnonsense\n(7/100%)"
	scanner := bufio.NewScanner(strings.NewReader(written))
	scanner.Split(splitProgress)
	var got []float64
	for scanner.Scan() {
		if percent, ok := parsePercent(scanner.Text()); ok {
			got = append(got, percent)
		}
	}
	want := []float64{0, 1.01, 99.5, 100, 7}
	if len(got) != len(want) {
		t.Fatalf("read are %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("read is %v, want %v", got[i], want[i])
		}
	}
	for _, line := range []string{"", "(/100%)", "(101/100%)", "(-1/100%)", "1/100%)", "(NaN/100%)"} {
		if percent, ok := parsePercent(line); ok {
			t.Errorf("%q is read as %v", line, percent)
		}
	}
}

func TestImageFormats(t *testing.T) {
	for _, test := range []struct{ named, file, want string }{
		{"", "a.raw", "raw"}, {"", "a.img", "raw"}, {"", "a.qcow2", "qcow2"},
		{"raw", "a.qcow2", "raw"}, {"qcow2", "a", "qcow2"},
		{"", "a", ""}, {"", "qcow2", ""}, {"vdi", "a.raw", ""},
	} {
		if got, err := imageFormat(test.named, test.file); got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%q, named %q, is %q, %v; want %q", test.file, test.named, got, err, test.want)
		}
	}
}

func TestPathsOfDevices(t *testing.T) {
	for device, want := range map[string]string{
		"/dev/nbd0": "/dev/nbd0",
		"nbd+unix:///?socket=/run/holdfast/sockets/x.nbd":         "/run/holdfast/sockets/x.nbd",
		"nbd+unix:///export?socket=/run/holdfast/sockets/a%20b.s": "/run/holdfast/sockets/a b.s",
	} {
		if got := localPath(device); got != want {
			t.Errorf("%s is at %s, want %s", device, got, want)
		}
	}
}
