package prepare

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/bpf"
	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// checksumFilterName names the filter, and which program it is.
func checksumFilterName() (string, error) {
	program, err := checksumProgram(map[string]bpf.Field{
		"ip_summed": {Bits: 2}, "csum_start": {Offset: 2}, "csum_offset": {Offset: 4}, "mac_header": {Offset: 6},
		"encapsulation": {Offset: 8, Bits: 1}, "inner_network_header": {Offset: 10},
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(program)
	return tablePrefix + "checksum-" + hex.EncodeToString(sum[:8]), nil
}

// filterDirections are where a tap's frames are judged: those from the guest, and
// those to it.
var filterDirections = []uint32{nl.Ingress, nl.Egress}

// readChecksumFilters tells which of the links have the filter, by their indexes.
func readChecksumFilters(conn *nl.Conn, links []nl.Link) (map[int]bool, error) {
	name, err := checksumFilterName()
	if err != nil {
		return nil, err
	}
	filtered := map[int]bool{}
	for _, l := range links {
		if l.Tun == nil {
			continue
		}
		there := true
		for _, at := range filterDirections {
			names, err := conn.FilterNames(l.Index, at)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l.Name, err)
			}
			there = there && slices.Contains(names, name)
		}
		filtered[l.Index] = there
	}
	return filtered, nil
}

// ChecksumFilter reports whether the tap has the filter that belongs to the port
// guard, and if not, why. It looks at the network namespace of the calling thread,
// and needs no privileges.
func (p Plan) ChecksumFilter() (on bool, why string, err error) {
	conn, err := nl.Open()
	if err != nil {
		return false, "", err
	}
	defer conn.Close()
	links, err := conn.Links()
	if err != nil {
		return false, "", err
	}
	filtered, err := readChecksumFilters(conn, links)
	if err != nil {
		return false, "", err
	}
	l := state{links: links}.link(p.Tap.Name)
	switch {
	case l == nil:
		return false, "there is no tap", nil
	case filtered[l.Index]:
		return true, "", nil
	case !p.Guard:
		return false, "the port guard is off", nil
	}
	if err := kernelTypes(); err != nil {
		return false, err.Error(), nil
	}
	return false, "it is not loaded: prepare needs the capabilities BPF and PERFMON for it, and warns of what else is missing", nil
}

// kernelTypes returns an error if the kernel does not describe its types.
func kernelTypes() error {
	if _, err := os.Stat(bpf.KernelTypes); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the node's kernel does not describe its types in %s (CONFIG_DEBUG_INFO_BTF)", bpf.KernelTypes)
	}
	return nil
}

// canFilter returns why this process can't load the filter, where that is known
// beforehand.
func canFilter() error {
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	has := func(capability int) bool { return caps[capability/32].Effective&(1<<(capability%32)) != 0 }
	if !has(unix.CAP_SYS_ADMIN) && (!has(unix.CAP_BPF) || !has(unix.CAP_PERFMON)) {
		return errors.New("the capabilities BPF and PERFMON are missing")
	}
	return kernelTypes()
}

// checksumOps gives the tap its filter, if there is to be one and it can be had.
func (p Plan) checksumOps(s state) []op {
	if l := s.link(p.Tap.Name); !p.Guard || s.unfiltered != nil || l != nil && s.filtered[l.Index] {
		return nil
	}
	return []op{addChecksumFilter{p.Tap.Name}}
}

// warnUnfiltered says so if the tap has no filter, is to have one, and can't.
func (p Plan) warnUnfiltered(log *slog.Logger, s state) {
	if l := s.link(p.Tap.Name); p.Guard && s.unfiltered != nil && (l == nil || !s.filtered[l.Index]) {
		warnUnfiltered(log, p.Tap.Name, s.unfiltered)
	}
}

func warnUnfiltered(log *slog.Logger, tap string, why error) {
	log.Warn("no checksum filter on the tap: the VM can have two bytes of a frame changed behind the port guard, by what it asks for in the virtio header",
		"tap", tap, "error", why,
		"remedy", "give prepare the capabilities BPF and PERFMON (Linux 5.8), or the VM a NIC without a virtio header (QEMU: vnet_hdr=off; libvirt: another model than virtio)")
}

// addChecksumFilter has the kernel judge the frames at a tap by checksumProgram.
// That it can't stops nothing.
type addChecksumFilter struct{ tap string }

// String says it in a comment: tc(8) would need the program in a file.
func (o addChecksumFilter) String() string {
	return fmt.Sprintf("# tc filter on %s, ingress and egress: a BPF program that drops frames whose checksum would be written elsewhere", o.tap)
}

// inverse is nothing: the filter goes with a new tap, and a VM that is on another
// must not be without.
func (o addChecksumFilter) inverse() op { return nil }

func (o addChecksumFilter) do(k *kernel) error {
	index, err := k.conn.Index(o.tap)
	if err != nil {
		return err
	}
	if err := k.setChecksumFilter(index); err != nil {
		warnUnfiltered(k.log, o.tap, err)
	}
	return nil
}

func (k *kernel) setChecksumFilter(index int) error {
	name, err := checksumFilterName()
	if err != nil {
		return err
	}
	fields, err := bpf.Fields("sk_buff", skbFields...)
	if err != nil {
		return err
	}
	code, err := checksumProgram(fields)
	if err != nil {
		return err
	}
	program, err := bpf.LoadClassifier("vln_checksum", code)
	if err != nil {
		return err
	}
	defer program.Close()
	for _, at := range filterDirections {
		if err := k.conn.SetFilter(index, at, int(program.Fd()), name); err != nil {
			return err
		}
	}
	return nil
}
