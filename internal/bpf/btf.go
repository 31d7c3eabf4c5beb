package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// KernelTypes is where the kernel describes its types
// (Documentation/bpf/btf.rst).
const KernelTypes = "/sys/kernel/btf/vmlinux"

// maxTypes is more than any kernel has.
const maxTypes = 256 << 20

// Field is where a field is in a struct.
type Field struct {
	Offset int // in bytes
	Shift  int // of a bit field: how many bits are below it, in its byte
	Bits   int // of a bit field; 0: it is none
}

// Fields finds fields of a struct of the running kernel. They may be in structs
// and unions without a name within it.
func Fields(structure string, names ...string) (map[string]Field, error) {
	raw, err := mapFile(KernelTypes)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	defer unix.Munmap(raw)
	fields, err := fieldsOf(raw, structure, names)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	return fields, nil
}

// mapFile reads a file of some megabytes into memory that is free as soon as it is
// unmapped.
func mapFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	size := int(info.Size())
	if size <= 0 || size > maxTypes {
		return nil, fmt.Errorf("%s has %d bytes", path, size)
	}
	raw, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err == nil {
		return raw, nil
	}
	// That needs Linux 6.16.
	raw, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	if _, err := io.ReadFull(file, raw); err != nil {
		return nil, errors.Join(err, unix.Munmap(raw))
	}
	return raw, nil
}

// Kinds of types (linux/btf.h).
const (
	kindInt       = 1
	kindArray     = 3
	kindStruct    = 4
	kindUnion     = 5
	kindEnum      = 6
	kindFuncProto = 13
	kindVar       = 14
	kindDataSec   = 15
	kindDeclTag   = 17
	kindEnum64    = 19
	kindLast      = kindEnum64
)

var errCut = errors.New("BTF is cut off")

// types is a section of types. That of the kernel has 100,000 of them, so they are
// skipped through, and only as far as is asked for: a struct of the kernel's core is
// among the first.
type types struct {
	raw     []byte
	strings []byte
	starts  []uint32 // of each type so far, by its number; 0 is void
	next    uint32   // where the one after them starts
}

// fieldsOf is Fields in raw BTF.
func fieldsOf(raw []byte, structure string, names []string) (map[string]Field, error) {
	const header = 24 // struct btf_header
	if len(raw) < header || binary.NativeEndian.Uint16(raw) != 0xeb9f {
		return nil, errors.New("it is not BTF")
	}
	word := func(at int) uint64 { return uint64(binary.NativeEndian.Uint32(raw[at:])) }
	section := func(at int) ([]byte, error) {
		from := word(4) + word(at)
		to := from + word(at+4)
		if to > uint64(len(raw)) {
			return nil, errCut
		}
		return raw[from:to], nil
	}
	t := types{starts: append(make([]uint32, 0, usualTypes), 0)}
	var err error
	if t.raw, err = section(8); err != nil {
		return nil, err
	}
	if t.strings, err = section(16); err != nil {
		return nil, err
	}
	at, err := t.find(structure)
	if err != nil {
		return nil, err
	}
	found := map[string]Field{}
	if err := t.members(at, 0, 0, names, found); err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, ok := found[name]; !ok {
			return nil, fmt.Errorf("struct %s has no %s", structure, name)
		}
	}
	return found, nil
}

// usualTypes is how many types are skipped before struct sk_buff, or more.
const usualTypes = 8192

// find returns where the struct of that name starts.
func (t *types) find(structure string) (at uint32, err error) {
	for int(t.next) < len(t.raw) {
		at = t.next
		kind, err := t.skip()
		if err != nil {
			return 0, err
		}
		if kind == kindStruct && t.isNamed(at, structure) {
			return at, nil
		}
	}
	return 0, fmt.Errorf("there is no struct %s", structure)
}

// start returns where a type starts.
func (t *types) start(number uint32) (uint32, error) {
	for int(number) >= len(t.starts) {
		if _, err := t.skip(); err != nil {
			return 0, err
		}
	}
	return t.starts[number], nil
}

// skip notes where the next type starts, and returns its kind.
func (t *types) skip() (kind uint32, err error) {
	at := t.next
	if int(at)+12 > len(t.raw) {
		return 0, errCut
	}
	info := binary.NativeEndian.Uint32(t.raw[at+4:])
	kind, count := info>>24&0x1f, info&0xffff
	t.next += 12
	switch kind {
	case kindInt, kindVar, kindDeclTag:
		t.next += 4
	case kindArray:
		t.next += 12
	case kindStruct, kindUnion, kindDataSec, kindEnum64:
		t.next += 12 * count
	case kindEnum, kindFuncProto:
		t.next += 8 * count
	}
	if kind == 0 || kind > kindLast {
		return 0, fmt.Errorf("type %d is of kind %d", len(t.starts), kind)
	}
	t.starts = append(t.starts, at)
	return kind, nil
}

func (t *types) isNamed(at uint32, name string) bool {
	offset := binary.NativeEndian.Uint32(t.raw[at:])
	if int(offset) >= len(t.strings) {
		return false
	}
	rest, ok := bytes.CutPrefix(t.strings[offset:], []byte(name))
	return ok && len(rest) > 0 && rest[0] == 0
}

// members adds those fields of the struct or union that starts there that have one of
// the names. It begins some bits after the outermost one.
func (t *types) members(at, base uint32, depth int, names []string, found map[string]Field) error {
	if depth > 8 || int(at)+12 > len(t.raw) {
		return errCut
	}
	info := binary.NativeEndian.Uint32(t.raw[at+4:])
	if kind := info >> 24 & 0x1f; kind != kindStruct && kind != kindUnion {
		return nil
	}
	hasBits := info>>31 != 0
	at += 12
	for range info & 0xffff {
		if int(at)+12 > len(t.raw) {
			return errCut
		}
		name, member, offset := binary.NativeEndian.Uint32(t.raw[at:]), binary.NativeEndian.Uint32(t.raw[at+4:]), binary.NativeEndian.Uint32(t.raw[at+8:])
		at += 12
		bits := uint32(0)
		if hasBits {
			bits, offset = offset>>24, offset&0xffffff
		}
		offset += base
		if int(name) >= len(t.strings) {
			return errCut
		}
		word, _, _ := bytes.Cut(t.strings[name:], []byte{0})
		if len(word) == 0 {
			inner, err := t.start(member)
			if err != nil {
				return err
			}
			if err := t.members(inner, offset, depth+1, names, found); err != nil {
				return err
			}
			continue
		}
		n := slices.IndexFunc(names, func(name string) bool { return name == string(word) })
		if n < 0 {
			continue
		}
		f := Field{Offset: int(offset / 8), Bits: int(bits)}
		if bits != 0 {
			if f.Shift = int(offset % 8); isBigEndian() {
				f.Shift = 8 - f.Shift - f.Bits
			}
		}
		if _, ok := found[names[n]]; !ok {
			found[names[n]] = f
		}
	}
	return nil
}
