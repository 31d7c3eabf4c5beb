// Package netboot says which boot file a firmware gets that boots from the
// network, whether it asks by DHCPv4 or by DHCPv6. It is pure.
package netboot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxName is the longest name of a boot file: one part of DHCPv4's option 67.
const maxName = 255

// Vendor classes by which firmware is told apart from other clients (PXE 2.1
// §2.2.1; UEFI 2.10 §24.7), and tells a server for it from any other.
const (
	PXEClient  = "PXEClient"
	HTTPClient = "HTTPClient"
)

// Firmware names a kind of network boot client: a key of architectures, the
// number of an architecture type in decimal, or ipxe. Empty: all that have no
// file of their own.
type Firmware string

// ipxe is iPXE itself, whatever it runs on. It is often loaded as the boot file
// by a firmware and then asks again, for what it shall boot.
const ipxe Firmware = "ipxe"

// architectures has the types that firmware sends as DHCPv4's option 93 (RFC
// 4578 §2.1) or DHCPv6's 61 (RFC 5970 §3.3), and IANA's registry "Processor
// Architecture Types" that came of them.
var architectures = map[Firmware][]uint16{
	"bios":             {0},
	"efi-ia32":         {6},
	"efi-x64":          {7, 9}, // 9 by the RFC's text, 7 by the registry and nearly all firmware
	"efi-arm":          {10},
	"efi-arm64":        {11},
	"efi-riscv64":      {27},
	"efi-loongarch64":  {39},
	"http-ia32":        {15},
	"http-x64":         {16},
	"http-arm":         {18},
	"http-arm64":       {19},
	"http-riscv64":     {28},
	"http-loongarch64": {40},
}

// types are the architecture types that f means. None: f is none, or iPXE.
func (f Firmware) types() []uint16 {
	if types, ok := architectures[f]; ok {
		return types
	}
	n, err := strconv.ParseUint(string(f), 10, 16)
	if err != nil {
		return nil
	}
	return []uint16{uint16(n)}
}

func (f Firmware) validate() error {
	if f == "" || f == ipxe || f.types() != nil {
		return nil
	}
	known := append(slices.Sorted(maps.Keys(architectures)), ipxe)
	return fmt.Errorf("unknown firmware %q: want one of %v or the number of an architecture type", string(f), known)
}

// File is what one kind of firmware boots.
type File struct {
	// Firmware is the kind: bios, efi-ia32, efi-x64, efi-arm, efi-arm64,
	// efi-riscv64, efi-loongarch64, the same with http- in place of efi- for UEFI
	// HTTP boot, the number of another architecture type, or ipxe, which goes
	// before the architecture. Empty: all that have no file of their own.
	Firmware Firmware
	// Name is a path on the TFTP server, or a URL.
	Name string
}

// ParseFile reads FIRMWARE=NAME, or NAME alone, for which Firmware is empty. A
// NAME that has the sign itself, after nothing but letters, digits and dashes,
// needs a FIRMWARE before it.
func ParseFile(s string) (File, error) {
	f := File{Name: s}
	if word, name, ok := strings.Cut(s, "="); ok && !strings.ContainsFunc(word, notInFirmware) {
		if word == "" {
			return File{}, fmt.Errorf("parse boot file %q: name a firmware before the =", s)
		}
		f = File{Firmware: Firmware(word), Name: name}
	}
	if err := f.validate(); err != nil {
		return File{}, fmt.Errorf("parse boot file %q: %w", s, err)
	}
	return f, nil
}

func notInFirmware(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

func (f File) validate() error {
	switch {
	case f.Name == "":
		return errors.New("it has no name")
	case len(f.Name) > maxName || strings.ContainsFunc(f.Name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("its name is longer than %d bytes or not printable", maxName)
	}
	return f.Firmware.validate()
}

// Files are the boot files of all firmware, at most one for each kind.
type Files []File

// Validate tells of all that is wrong with the files.
func (files Files) Validate() error {
	var errs []error
	for i, f := range files {
		err := f.validate()
		if err == nil && slices.ContainsFunc(files[:i], func(o File) bool { return o.Firmware == f.Firmware }) {
			err = errors.New("another file is for the same firmware")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("boot file %q of firmware %q: %w", f.Name, string(f.Firmware), err))
		}
	}
	return errors.Join(errs...)
}

// For chooses the file of a client, by the architecture types that it sends, of
// two bytes each and in its order of preference, and whether it is iPXE. Empty:
// there is none.
func (files Files) For(types []byte, isIPXE bool) string {
	if f := files.of(ipxe); isIPXE && f != "" {
		return f
	}
	for ; len(types) >= 2; types = types[2:] {
		t := binary.BigEndian.Uint16(types)
		for _, f := range files {
			if slices.Contains(f.Firmware.types(), t) {
				return f.Name
			}
		}
	}
	return files.of("")
}

// of is the file of a kind of firmware.
func (files Files) of(kind Firmware) string {
	for _, f := range files {
		if f.Firmware == kind {
			return f.Name
		}
	}
	return ""
}
