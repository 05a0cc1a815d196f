package nbd

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// wantProtocolError fails unless a decoder's error is the one for bad peers.
func wantProtocolError(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, block.ErrProtocol) {
		t.Fatalf("error %v does not wrap ErrProtocol", err)
	}
}

func FuzzRequestHeader(f *testing.F) {
	var raw [requestHeaderLength]byte
	h := requestHeader{flags: cmdFlagFUA, command: cmdWrite, cookie: 7, offset: 1 << 40, length: 4096}
	h.encode(raw[:])
	f.Add(raw[:])
	f.Add(raw[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		var h requestHeader
		if err := h.decode(b); err != nil {
			wantProtocolError(t, err)
			return
		}
		var again [requestHeaderLength]byte
		h.encode(again[:])
		if !bytes.Equal(again[:], b[:requestHeaderLength]) {
			t.Fatalf("%x became %x", b[:requestHeaderLength], again)
		}
	})
}

func FuzzReplyHeader(f *testing.F) {
	for _, h := range []replyHeader{
		{cookie: 9, errno: EIO},
		{structured: true, flags: chunkFlagDone, chunk: chunkOffsetData, cookie: 1, length: 520},
		{structured: true, flags: chunkFlagDone, chunk: chunkError, cookie: 1, length: 6},
		{structured: true, chunk: chunkBlockStatus, cookie: 1, length: 12},
		{structured: true, flags: chunkFlagDone, chunk: chunkNone, cookie: 1},
	} {
		var raw [structuredReplyLength]byte
		f.Add(raw[:h.encode(raw[:])])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h replyHeader
		if err := h.decode(b); err != nil {
			wantProtocolError(t, err)
			return
		}
		var again [structuredReplyLength]byte
		n := h.encode(again[:])
		if !bytes.Equal(again[:n], b[:n]) {
			t.Fatalf("%x became %x", b[:n], again[:n])
		}
	})
}

func FuzzErrorChunk(f *testing.F) {
	f.Add([]byte{0, 0, 0, 5, 0, 2, 'n', 'o'})
	f.Add([]byte{0, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		errno, text, err := decodeErrorChunk(b)
		if err != nil {
			wantProtocolError(t, err)
			return
		}
		if errno == 0 || len(text) > len(b) {
			t.Fatalf("error %d with %d bytes of text from %d bytes", errno, len(text), len(b))
		}
	})
}

func FuzzStatusChunk(f *testing.F) {
	f.Add(appendStatusChunk(nil, 3, []Extent{{Length: 4096, Flags: StateHole}, {Length: 512}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		context, extents, err := decodeStatusChunk(b)
		if err != nil {
			wantProtocolError(t, err)
			return
		}
		if again := appendStatusChunk(nil, context, extents); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzOptionHeader(f *testing.F) {
	var raw [optionHeaderLength]byte
	h := optionHeader{option: OptGo, length: 12}
	h.encode(raw[:])
	f.Add(raw[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var h optionHeader
		if err := h.decode(b); err != nil {
			wantProtocolError(t, err)
			return
		}
		var again [optionHeaderLength]byte
		h.encode(again[:])
		if !bytes.Equal(again[:], b[:optionHeaderLength]) {
			t.Fatalf("%x became %x", b[:optionHeaderLength], again)
		}
	})
}

func FuzzOptionReplyHeader(f *testing.F) {
	var raw [optionReplyHeaderLength]byte
	h := optionReplyHeader{option: OptGo, reply: RepErrUnknown, length: 12}
	h.encode(raw[:])
	f.Add(raw[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var h optionReplyHeader
		if err := h.decode(b); err != nil {
			wantProtocolError(t, err)
			return
		}
		var again [optionReplyHeaderLength]byte
		h.encode(again[:])
		if !bytes.Equal(again[:], b[:optionReplyHeaderLength]) {
			t.Fatalf("%x became %x", b[:optionReplyHeaderLength], again)
		}
	})
}

func FuzzInfoRequest(f *testing.F) {
	seed := infoRequest{name: "volume", infos: []uint16{infoBlockSize, infoName}}
	f.Add(seed.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r infoRequest
		if err := r.decode(b); err != nil {
			wantProtocolError(t, err)
			return
		}
		if again := r.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzContextRequest(f *testing.F) {
	seed := contextRequest{name: "volume", queries: []string{ContextAllocation, "holdfast:"}}
	f.Add(seed.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var r contextRequest
		if err := r.decode(b); err != nil {
			wantProtocolError(t, err)
			return
		}
		if again := r.encode(); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzMetaContext(f *testing.F) {
	seed := MetaContext{ID: 4, Name: ContextAllocation}
	f.Add(seed.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m MetaContext
		if err := m.decode(b); err != nil {
			wantProtocolError(t, err)
			return
		}
		if again := m.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzInfo(f *testing.F) {
	info := ExportInfo{Name: "v", Description: "d", Size: 1 << 30, MinBlock: 512, PreferredBlock: 4096, MaxBlock: 1 << 20}
	want := infoRequest{name: "v", infos: []uint16{infoName, infoDescription}}
	for _, payload := range appendInfos(&info, FlagHasFlags, &want) {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var info ExportInfo
		var flags TransmissionFlags
		if err := decodeInfo(b, &info, &flags); err != nil {
			wantProtocolError(t, err)
			return
		}
		if info.Size < 0 {
			t.Fatalf("size %d", info.Size)
		}
	})
}

func TestInfoRoundTrip(t *testing.T) {
	in := ExportInfo{
		Name: "v", Description: "text", Size: 1 << 30, MinBlock: 4096, PreferredBlock: 4096, MaxBlock: 1 << 20,
		Flush: true, FUA: true, Trim: true, Zeroes: true,
	}
	want := infoRequest{name: "v", infos: []uint16{infoName, infoDescription}}
	var out ExportInfo
	var flags TransmissionFlags
	for _, payload := range appendInfos(&in, in.Flags(), &want) {
		if err := decodeInfo(payload, &out, &flags); err != nil {
			t.Fatal(err)
		}
	}
	out.setFlags(flags)
	if !reflect.DeepEqual(in, out) {
		t.Fatalf("%+v became %+v", in, out)
	}
}
