package bpf

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel says of itself can be read, and what has no name is looked
// into.
func TestFields(t *testing.T) {
	fields, err := Fields("sk_buff", "ip_summed", "csum_start", "csum_offset", "mac_header", "len")
	if err != nil {
		t.Fatal(err)
	}
	// csum_start and csum_offset are two halves of one word (linux/skbuff.h).
	if fields["csum_offset"].Offset != fields["csum_start"].Offset+2 || fields["ip_summed"].Bits != 2 || fields["len"].Bits != 0 {
		t.Errorf("got %+v", fields)
	}
	if _, err := Fields("sk_buff", "no_such_field"); err == nil {
		t.Error("a field that is not there is found")
	}
	if _, err := Fields("no_such_struct", "len"); err == nil {
		t.Error("a struct that is not there is found")
	}
}

func BenchmarkFields(b *testing.B) {
	for b.Loop() {
		if _, err := Fields("sk_buff", "ip_summed"); err != nil {
			b.Fatal(err)
		}
	}
}

// outer is struct outer { int a:3; int b:2; struct { char pad[4]; short c; }; }.
func outer() []byte {
	strings := []byte("\x00outer\x00a\x00b\x00pad\x00c\x00int\x00")
	var types []byte
	add := func(words ...uint32) {
		for _, w := range words {
			types = binary.NativeEndian.AppendUint32(types, w)
		}
	}
	add(18, 1<<24, 4, 32)                                           // 1: int
	add(1, 1<<31|4<<24|3, 12, 7, 1, 3<<24, 9, 1, 2<<24|3, 0, 3, 32) // 2: outer
	add(0, 4<<24|2, 8, 11, 1, 0, 15, 1, 32)                         // 3: the inner one
	raw := binary.NativeEndian.AppendUint16(nil, 0xeb9f)
	raw = append(raw, 1, 0)
	for _, w := range []uint32{24, 0, uint32(len(types)), uint32(len(types)), uint32(len(strings))} {
		raw = binary.NativeEndian.AppendUint32(raw, w)
	}
	return append(append(raw, types...), strings...)
}

func TestFieldsOf(t *testing.T) {
	raw := outer()
	fields, err := fieldsOf(raw, "outer", []string{"a", "b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	if isBigEndian() {
		t.Skip("the shifts below are of little endian")
	}
	for name, want := range map[string]Field{"a": {0, 0, 3}, "b": {0, 3, 2}, "c": {8, 0, 0}} {
		if fields[name] != want {
			t.Errorf("%s is at %+v, want %+v", name, fields[name], want)
		}
	}
	for n := range raw {
		if _, err := fieldsOf(raw[:n], "outer", []string{"a", "b", "c"}); err == nil {
			t.Errorf("cut after %d bytes: no error", n)
		}
	}
}

// Whatever BTF says, reading it ends, and well or with an error.
func FuzzFieldsOf(f *testing.F) {
	f.Add(outer())
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = fieldsOf(raw, "outer", []string{"a", "b", "c"})
	})
}

// A file that can't be mapped is read.
func TestMapFile(t *testing.T) {
	for _, path := range []string{KernelTypes, "/sys/kernel/notes"} {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := mapFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d", path, len(got), len(want))
		}
		if err := unix.Munmap(got); err != nil {
			t.Error(err)
		}
	}
}
