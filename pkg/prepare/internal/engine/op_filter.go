package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/bpf"
	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// checksumFilter names the filter, and by a digest which program it is: on a tap it
// may be an older version's. A test tells when it has to change.
const checksumFilter = nft.Prefix + "checksum-3de19cf2b28804f4"

// filterDirections are where a tap's frames are judged: those from the guest, and
// those to it.
var filterDirections = []uint32{minIngress, minEgress}

// Handles of tc(8) (TC_H_CLSACT and others, linux/pkt_sched.h).
const (
	clsact       = 0xffff_0000
	parentClsact = 0xffff_fff1
	minIngress   = 0xffff_fff2
	minEgress    = 0xffff_fff3
)

// ReadFilters tells which of the taps have the filter.
func (s *State) ReadFilters(conn *nl.Conn) error {
	s.Filtered = map[int]bool{}
	for _, l := range s.Links {
		if l.Tun == nil {
			continue
		}
		there := true
		for _, at := range filterDirections {
			names, err := conn.FilterNames(l.Index, at)
			if err != nil {
				return fmt.Errorf("%s: %w", l.Name, err)
			}
			there = there && slices.Contains(names, checksumFilter)
		}
		s.Filtered[l.Index] = there
	}
	return nil
}

// ChecksumFilter reports whether the NIC's tap has the filter that belongs to the
// port guard, and if not, why. It looks at the network namespace of the calling
// thread, and needs no privileges.
func ChecksumFilter(n guest.NIC) (on bool, why string, err error) {
	conn, err := nl.Open()
	if err != nil {
		return false, "", err
	}
	defer conn.Close()
	links, err := conn.Links()
	s := &State{Links: links}
	if err == nil {
		err = s.ReadFilters(conn)
	}
	if err != nil {
		return false, "", err
	}
	l := s.Link(n.Tap)
	switch {
	case l == nil:
		return false, "there is no tap", nil
	case s.Filtered[l.Index]:
		return true, "", nil
	case !n.Guard:
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

// ChecksumOps give the NIC's tap its filter, if there is to be one and it can be had.
func ChecksumOps(s *State, n guest.NIC) []Op {
	if l := s.Link(n.Tap); !n.Guard || s.Unfiltered != nil || l != nil && s.Filtered[l.Index] {
		return nil
	}
	return []Op{AddChecksumFilter{n.Tap}}
}

// WarnUnfiltered warns if the NIC's tap is to have a filter, has none and can't get one.
func WarnUnfiltered(log *slog.Logger, s *State, n guest.NIC) {
	if l := s.Link(n.Tap); n.Guard && s.Unfiltered != nil && (l == nil || !s.Filtered[l.Index]) {
		warnUnfiltered(log, n.Tap, s.Unfiltered)
	}
}

func warnUnfiltered(log *slog.Logger, tap string, why error) {
	log.Warn("the tap has no checksum filter: by its virtio header the VM can have two bytes of a frame changed after the port guard has checked it",
		"tap", tap, "error", why,
		"remedy", "give prepare the capabilities BPF and PERFMON (Linux 5.8), or the VM a NIC without a virtio header (QEMU: vnet_hdr=off; libvirt: another model than virtio)")
}

// AddChecksumFilter has the kernel judge the frames at a tap by checksumProgram.
type AddChecksumFilter struct{ Tap string }

// String says it in a comment: tc(8) would need the program in a file.
func (o AddChecksumFilter) String() string {
	return fmt.Sprintf("# tc filter on %s, ingress and egress: a BPF program that drops frames whose checksum would be written elsewhere", o.Tap)
}

// Inverse is nothing: a new tap takes its filter along when it is deleted, and a VM on
// an older one must not be without.
func (o AddChecksumFilter) Inverse() Op { return nil }

// Do attaches it. If that fails it warns and goes on.
func (o AddChecksumFilter) Do(k *Kernel) error {
	index, err := k.Conn.Index(o.Tap)
	if err != nil {
		return err
	}
	if err := k.setChecksumFilter(o.Tap, index); err != nil {
		warnUnfiltered(k.log, o.Tap, err)
	}
	return nil
}

func (k *Kernel) setChecksumFilter(tap string, index int) error {
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
	// The kernel refuses if the link has an ingress qdisc, whose filters do not see egress.
	queue := &vnl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: clsact, Parent: parentClsact}
	if err := k.Conn.Request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, queue, vnl.NewRtAttr(vnl.TCA_KIND, vnl.ZeroTerminated("clsact"))); err != nil {
		return fmt.Errorf("add clsact: %w: if %s has an ingress qdisc, as by <bandwidth> in a domain, delete it: tc qdisc del dev %s ingress", err, tap, tap)
	}
	options := vnl.NewRtAttr(vnl.TCA_OPTIONS, nil)
	options.AddRtAttr(vnl.TCA_BPF_FD, vnl.Uint32Attr(uint32(program.Fd())))
	options.AddRtAttr(vnl.TCA_BPF_NAME, vnl.ZeroTerminated(checksumFilter))
	options.AddRtAttr(vnl.TCA_BPF_FLAGS, vnl.Uint32Attr(vnl.TCA_BPF_FLAG_ACT_DIRECT))
	for _, at := range filterDirections {
		const priority = 1 // tcm_info has it above the frames' type
		filter := &vnl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: at, Handle: 1, Info: priority<<16 | uint32(vnl.Swap16(unix.ETH_P_ALL))}
		if err := k.Conn.Request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, filter, vnl.NewRtAttr(vnl.TCA_KIND, vnl.ZeroTerminated("bpf")), options); err != nil {
			return fmt.Errorf("add filter: %w", err)
		}
	}
	return nil
}
