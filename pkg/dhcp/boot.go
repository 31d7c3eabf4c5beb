package dhcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// maxBootName is the longest name of a boot file: one part of option 67.
const maxBootName = 255

// Firmware names a kind of network boot client: a key of architectures, the
// number of an architecture type in decimal, or ipxe.
type Firmware string

// ipxe is iPXE itself, whatever it runs on. It is often loaded as the boot file
// by a firmware and then asks again, for what it shall boot.
const ipxe Firmware = "ipxe"

// architectures has the types that firmware sends as option 93: RFC 4578 §2.1
// and IANA's registry "Processor Architecture Types" that came of it.
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
	if f == ipxe || f.types() != nil {
		return nil
	}
	known := append(slices.Sorted(maps.Keys(architectures)), ipxe)
	return fmt.Errorf("no firmware is called %q: want one of %v or the number of an architecture type", string(f), known)
}

// BootFile is what one kind of client boots.
type BootFile struct {
	// Firmware is the kind of client: bios, efi-ia32, efi-x64, efi-arm,
	// efi-arm64, efi-riscv64, efi-loongarch64, the same with http- in place of
	// efi- for UEFI HTTP boot, the number of another architecture type (option
	// 93), or ipxe, which goes before the architecture.
	Firmware Firmware
	// Name is a path on the TFTP server, or a URL for those who take one.
	Name string
}

// ParseBootFile reads FIRMWARE=NAME, or NAME alone, for which Firmware is empty:
// the file of all who have none of their own. A NAME that has the sign itself,
// after nothing but letters, digits and dashes, needs a FIRMWARE before it.
func ParseBootFile(s string) (BootFile, error) {
	b := BootFile{Name: s}
	if word, name, ok := strings.Cut(s, "="); ok && !strings.ContainsFunc(word, notInFirmware) {
		b = BootFile{Firmware: Firmware(word), Name: name}
		if err := b.Firmware.validate(); err != nil {
			return BootFile{}, fmt.Errorf("parse boot file %q: %w", s, err)
		}
	}
	if err := validateBootName(b.Name); err != nil {
		return BootFile{}, fmt.Errorf("parse boot file %q: %w", s, err)
	}
	return b, nil
}

func notInFirmware(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

func validateBootName(name string) error {
	switch {
	case name == "":
		return errors.New("it has no name")
	case !isBootString(name, maxBootName):
		return fmt.Errorf("its name is longer than %d bytes or not printable", maxBootName)
	}
	return nil
}

// validateBootFiles tells of all that is wrong with the lease's boot files.
func (l Lease) validateBootFiles() error {
	var errs []error
	seen := map[Firmware]bool{}
	for _, b := range l.BootFiles {
		err := errors.Join(b.Firmware.validate(), validateBootName(b.Name))
		if err == nil && seen[b.Firmware] {
			err = errors.New("there are two")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("invalid lease: boot file of %s: %w", b.Firmware, err))
		}
		seen[b.Firmware] = true
	}
	return errors.Join(errs...)
}

// bootFiles are a lease's boot files, by what a client says of itself.
type bootFiles struct {
	byType map[uint16]string
	ipxe   string
	rest   string
}

func bootFilesOf(l Lease) bootFiles {
	f := bootFiles{byType: map[uint16]string{}, rest: l.BootFile}
	for _, b := range l.BootFiles {
		if b.Firmware == ipxe {
			f.ipxe = b.Name
		}
		for _, t := range b.Firmware.types() {
			f.byType[t] = b.Name
		}
	}
	return f
}

// of chooses the client's boot file. Empty: there is none.
func (f bootFiles) of(req *dhcpv4.DHCPv4) string {
	if f.ipxe != "" && isIPXE(req) {
		return f.ipxe
	}
	// In the client's order of preference.
	for types := req.Options[optArchitecture]; len(types) >= 2; types = types[2:] {
		if name, ok := f.byType[binary.BigEndian.Uint16(types)]; ok {
			return name
		}
	}
	return f.rest
}

// isIPXE recognises iPXE by its user class (option 77), which it sends as bare
// text where RFC 3004 wants a list, or by its own options (175).
func isIPXE(req *dhcpv4.DHCPv4) bool {
	_, ok := req.Options[optIPXE]
	return ok || bytes.Contains(req.Options[optUserClass], []byte("iPXE"))
}

// Vendor classes by which firmware is told apart from other clients (PXE 2.1
// §2.2.1; UEFI 2.10 §24.7), and tells a server for it from any other.
const (
	pxeClass  = "PXEClient"
	httpClass = "HTTPClient"
)

// pxeNoDiscovery is the vendor option (43) that has PXE firmware load the boot
// file it was named rather than look for boot servers: PXE_DISCOVERY_CONTROL
// with bit 3, and the end (PXE 2.1, table 2-1).
var pxeNoDiscovery = []byte{6, 1, 8, optEnd}

// addBoot adds what network boot needs: where the file is, the client's file
// and, for firmware that looks for it, the word that we are a server for such.
func (r *Responder) addBoot(m, req *dhcpv4.DHCPv4) {
	m.ServerIPAddr, m.ServerHostName = r.siaddr, r.lease.TFTPServer
	if id := req.Options[optClientUUID]; len(id) > 0 {
		m.Options[optClientUUID] = id // RFC 4578 §2.3
	}
	name := r.files.of(req)
	if name == "" {
		return
	}
	if len(name) <= maxBootField {
		m.BootFileName = name
	}
	m.Options[optBootFile] = []byte(name)
	class := req.Options[optVendorClass]
	switch {
	case bytes.HasPrefix(class, []byte(pxeClass)):
		m.Options[optVendorClass] = []byte(pxeClass)
		m.Options[optVendor] = pxeNoDiscovery
	case bytes.HasPrefix(class, []byte(httpClass)) && strings.HasPrefix(name, "http"):
		m.Options[optVendorClass] = []byte(httpClass)
	}
}
