package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares a frame with its committed bytes: a frame once sent by a
// release is understood for ever.
func golden(t *testing.T, name string, frame []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	if *update {
		if err := os.WriteFile(path, []byte(hex.Dump(frame)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(frame); got != string(want) {
		t.Fatalf("%s:\n%s\nwant\n%s", path, got, want)
	}
}

func TestRequestFrames(t *testing.T) {
	for _, s := range requestSamples() {
		t.Run(s.name, func(t *testing.T) {
			frame := requestFrame(t, &s.req)
			golden(t, "request-"+s.name, frame)
			got, err := readRequest(bytes.NewReader(frame))
			if err != nil {
				t.Fatal(err)
			}
			sameRequest(t, got, s.req)
		})
	}
}

func TestReplyFrames(t *testing.T) {
	for _, s := range replySamples() {
		t.Run(s.name, func(t *testing.T) {
			frame := replyFrame(t, &s.rep)
			golden(t, "reply-"+s.name, frame)
			got, err := readReply(bytes.NewReader(frame))
			if err != nil {
				t.Fatal(err)
			}
			sameReply(t, got, s.rep)
		})
	}
}

// TestFlippedFrame flips each bit of the first byte values of every frame:
// nothing that was damaged is understood.
func TestFlippedFrame(t *testing.T) {
	for _, s := range requestSamples() {
		frame := requestFrame(t, &s.req)
		for i := range frame {
			for _, flip := range []byte{1, 0x80, 0xff} {
				frame[i] ^= flip
				if req, err := readRequest(bytes.NewReader(frame)); !errors.Is(err, block.ErrProtocol) {
					t.Fatalf("%s with byte %d flipped by %#x: %+v, %v", s.name, i, flip, req, err)
				}
				frame[i] ^= flip
			}
		}
	}
	for _, s := range replySamples() {
		frame := replyFrame(t, &s.rep)
		for i := range frame {
			frame[i] ^= 0x10
			if rep, err := readReply(bytes.NewReader(frame)); !errors.Is(err, block.ErrProtocol) {
				t.Fatalf("%s with byte %d flipped: %+v, %v", s.name, i, rep, err)
			}
			frame[i] ^= 0x10
		}
	}
}

func TestTruncatedFrame(t *testing.T) {
	for _, s := range requestSamples() {
		frame := requestFrame(t, &s.req)
		for n := range frame {
			_, err := readRequest(bytes.NewReader(frame[:n]))
			want := block.ErrProtocol
			if n == 0 {
				want = io.EOF
			}
			if !errors.Is(err, want) {
				t.Fatalf("%s cut after %d of %d bytes: %v", s.name, n, len(frame), err)
			}
		}
	}
}

// resum makes the checksums of a frame right again, so that the checks behind
// them are reached.
func resum(frame []byte) {
	binary.BigEndian.PutUint32(frame[76:], block.Checksum(frame[headerSize:]))
	binary.BigEndian.PutUint32(frame[80:], block.Checksum(frame[:80]))
}

// TestBadSizes: a size out of bounds is refused before anything is allocated or
// read for it: nothing follows these headers.
func TestBadSizes(t *testing.T) {
	write := func() []byte { return requestFrame(t, &requestSamples()[2].req) }
	for name, change := range map[string]func([]byte){
		"data too long":       func(b []byte) { binary.BigEndian.PutUint32(b[72:], block.MaxTransfer+1) },
		"data not the length": func(b []byte) { binary.BigEndian.PutUint32(b[72:], 512) },
		"no data":             func(b []byte) { binary.BigEndian.PutUint32(b[72:], 0) },
		"metadata":            func(b []byte) { binary.BigEndian.PutUint32(b[12:], 1) },
		"huge metadata":       func(b []byte) { b[6] = byte(block.OpUpdate); binary.BigEndian.PutUint32(b[12:], 1<<31) },
		"unknown operation":   func(b []byte) { b[6] = 99 },
		"reserved":            func(b []byte) { b[11] = 1 },
		"status":              func(b []byte) { b[9] = 1 },
		"a reply":             func(b []byte) { b[5] = kindReply },
		"another version":     func(b []byte) { b[4] = Version + 1 },
	} {
		frame := write()[:headerSize]
		change(frame)
		resum(frame)
		if _, err := readRequest(bytes.NewReader(frame)); !errors.Is(err, block.ErrProtocol) || strings.Contains(err.Error(), "ends inside") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReservedFieldsOfReplies: a reply has neither flags nor length.
func TestReservedFieldsOfReplies(t *testing.T) {
	for _, at := range []int{7, 71} {
		frame := replyFrame(t, &replySamples()[5].rep)
		frame[at] = 1
		resum(frame)
		if _, err := readReply(bytes.NewReader(frame)); !errors.Is(err, block.ErrProtocol) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

// TestSendRefusesUnsendable: what no receiver would take is not sent.
func TestSendRefusesUnsendable(t *testing.T) {
	for _, req := range []block.Request{
		{Op: block.OpOpen},
		{Op: block.OpUpdate},
		{Op: block.OpWrite, Length: 512},
		{Op: block.OpRead, Buf: sampleBuffer(512)},
		{Op: 77},
		{Op: block.OpFlush, Confirmed: make([]block.Confirmed, maxList+1)},
	} {
		if _, err := appendRequest(nil, sampleReplica, &req); !errors.Is(err, block.ErrProtocol) {
			t.Errorf("%+v: %v", req, err)
		}
	}
}

// forReplica lets the fuzzer's bytes pass as a frame of the sample's replica.
func forReplica(frame []byte) []byte {
	frame = bytes.Clone(frame)
	if len(frame) >= headerSize {
		copy(frame[16:32], sampleReplica.ID[:])
		resum(frame)
	}
	return frame
}

func FuzzRequestFrame(f *testing.F) {
	for _, s := range requestSamples() {
		f.Add(requestFrame(f, &s.req))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		frame = forReplica(frame)
		req, err := readRequest(bytes.NewReader(frame))
		if err != nil {
			return
		}
		if got := requestFrame(t, &req); !bytes.Equal(got, frame[:len(got)]) {
			t.Fatalf("%x was understood as %x", frame[:len(got)], got)
		}
		req.Buf.Release()
	})
}

func FuzzReplyFrame(f *testing.F) {
	for _, s := range replySamples() {
		f.Add(replyFrame(f, &s.rep))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		frame = forReplica(frame)
		rep, err := readReply(bytes.NewReader(frame))
		if err != nil || rep.Err != nil {
			return
		}
		got := replyFrame(t, &rep)
		if !bytes.Equal(got, frame[:len(got)]) {
			t.Fatalf("%x was understood as %x", frame[:len(got)], got)
		}
		rep.Buf.Release()
	})
}
