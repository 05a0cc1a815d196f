package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// attributes decodes one level for comparison.
func attributes(t *testing.T, b []byte) map[uint16][]byte {
	t.Helper()
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[uint16][]byte)
	for _, a := range list {
		m[a.Type&^(netlink.Nested|netlink.NetByteOrder)] = a.Data
	}
	return m
}

func TestConnectMessage(t *testing.T) {
	config := Config{
		Index: 3, Size: 1 << 30, BlockSize: 4096,
		Flags: nbd.FlagHasFlags | nbd.FlagSendFlush, Identifier: "volume/attachment",
	}
	b, err := encodeConnect(&config, 17)
	if err != nil {
		t.Fatal(err)
	}
	got := attributes(t, b)
	sockets := attributes(t, got[attrSockets])
	socket := attributes(t, sockets[attrSocketItem])
	if fd := nlenc.Uint32(socket[attrSocketFD]); fd != 17 {
		t.Errorf("socket %d", fd)
	}
	delete(got, attrSockets)
	want := map[uint16][]byte{
		attrIndex:             nlenc.Uint32Bytes(3),
		attrSizeBytes:         nlenc.Uint64Bytes(1 << 30),
		attrBlockSizeBytes:    nlenc.Uint64Bytes(4096),
		attrTimeout:           nlenc.Uint64Bytes(0),
		attrDeadConnTimeout:   nlenc.Uint64Bytes(1 << 30),
		attrServerFlags:       nlenc.Uint64Bytes(5),
		attrBackendIdentifier: append([]byte("volume/attachment"), 0),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	config.Index = AnyIndex
	if b, err = encodeConnect(&config, 17); err != nil {
		t.Fatal(err)
	}
	if _, ok := attributes(t, b)[attrIndex]; ok {
		t.Error("an index was sent for any device")
	}
}

func TestReconfigureCarriesTheIdentifier(t *testing.T) {
	b, err := encodeReconfigure(2, "volume/attachment", 9)
	if err != nil {
		t.Fatal(err)
	}
	got := attributes(t, b)
	if nlenc.Uint32(got[attrIndex]) != 2 || nlenc.String(got[attrBackendIdentifier]) != "volume/attachment" {
		t.Errorf("got %v", got)
	}
}

func TestResizeCarriesNoSocket(t *testing.T) {
	b, err := encodeResize(2, "volume/attachment", 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint16][]byte{
		attrIndex:             nlenc.Uint32Bytes(2),
		attrSizeBytes:         nlenc.Uint64Bytes(1 << 40),
		attrBackendIdentifier: append([]byte("volume/attachment"), 0),
	}
	if got := attributes(t, b); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func deviceList(t testing.TB, devices ...Status) []byte {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	e.Nested(attrDeviceList, func(list *netlink.AttributeEncoder) error {
		for _, d := range devices {
			list.Nested(attrDeviceItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(attrDeviceIndex, uint32(d.Index))
				connected := uint8(0)
				if d.Connected {
					connected = 1
				}
				item.Uint8(attrDeviceConnected, connected)
				return nil
			})
		}
		return nil
	})
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStatusMessage(t *testing.T) {
	want := []Status{{Index: 0}, {Index: 5, Connected: true}}
	got, err := decodeStatus(deviceList(t, want...))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatal(got, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(deviceList(f, Status{Index: 1, Connected: true}))
	index, err := encodeIndex(4)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(index)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeStatus(b); err != nil && !errors.Is(err, block.ErrProtocol) {
			t.Fatal(err)
		}
		if n, err := decodeIndex(b); err != nil && !errors.Is(err, block.ErrProtocol) || err == nil && n < 0 {
			t.Fatal(n, err)
		}
	})
}

func TestConfigValidate(t *testing.T) {
	good := Config{Index: AnyIndex, Size: 4096, BlockSize: 4096, Identifier: "x"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Index = -2 },
		func(c *Config) { c.Size = 0 },
		func(c *Config) { c.Size = 512 },
		func(c *Config) { c.BlockSize = 1024 },
		func(c *Config) { c.Identifier = "" },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestSysfs(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"nbd0/size": "0\n", "nbd3/backend": "volume/attachment\n", "nbd3/size": "2048\n",
		"nbd3/queue/io_timeout": "30000\n", "nbd3/queue/max_sectors_kb": "128\n",
	} {
		path := filepath.Join(root, "block", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := Sysfs(root)
	found, err := s.Identifiers()
	if err != nil || !reflect.DeepEqual(found, map[int]string{3: "volume/attachment"}) {
		t.Fatal(found, err)
	}
	if size, err := s.Size(3); err != nil || size != 1<<20 {
		t.Fatal(size, err)
	}
	if err := s.Tune(3); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(root, "block/nbd3/queue/io_timeout")); err != nil || string(raw[:3]) != "500" {
		t.Fatalf("%q %v", raw, err)
	}
}

func TestDialNamesWhatIsMissing(t *testing.T) {
	if _, err := os.Stat("/sys/module/nbd"); err == nil {
		client, err := Dial("")
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	if _, err := Dial(""); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("without NBD: %v", err)
	}
}
