package control

import (
	"strings"
	"testing"
)

func TestDialWantsAnAddress(t *testing.T) {
	for address, good := range map[string]bool{
		"unix:///run/holdfast/holdfastd.sock": true, "127.0.0.1:7420": true, "[::1]:7420": true, "node-1.example:7420": true,
		"": false, "node-1": false, "node-1:": false, ":7420": false, "node-1:0": false, "node-1:http": false, "node-1:70000": false,
		"http://node-1:7420": false, "unix://relative": false, "unix://": false, "/run/holdfast/holdfastd.sock": false,
	} {
		conn, err := Dial(address)
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "want unix:///path or host:port") {
			t.Errorf("%q: %v", address, err)
		}
		if conn != nil {
			conn.Close()
		}
	}
}
