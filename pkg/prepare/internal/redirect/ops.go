package redirect

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// prefixOf is the pod's alias as the tap has it. That of IPv4 is one address with
// another as its peer, so that none beside it is the pod's, as a broadcast address
// would be. The kernel loses the route to a peer of IPv6 when the link goes down.
func prefixOf(a guest.Alias) netip.Prefix {
	if a.Pod.Is4() {
		return netip.PrefixFrom(a.Pod, 32)
	}
	return netip.PrefixFrom(a.Pod, 126)
}

// setAddress adds the pod's alias to the tap, or deletes it.
type setAddress struct {
	tap   string
	alias guest.Alias
	add   bool
}

func (o setAddress) String() string {
	verb, how := "add", " scope link"
	if !o.add {
		verb, how = "del", ""
	}
	if o.alias.Pod.Is4() {
		return fmt.Sprintf("ip addr %s %s peer %s/32 dev %s%s", verb, o.alias.Pod, o.alias.VM, o.tap, how)
	}
	if o.add {
		how = " nodad"
	}
	return fmt.Sprintf("ip addr %s %s dev %s%s", verb, prefixOf(o.alias), o.tap, how)
}

// Inverse deletes or adds it.
func (o setAddress) Inverse() engine.Op { return setAddress{o.tap, o.alias, !o.add} }

// Do adds it, if it is not there, or deletes it, if it is.
func (o setAddress) Do(k *engine.Kernel) error {
	index, err := k.Conn.Index(o.tap)
	if err != nil {
		return err
	}
	m := vnl.NewIfAddrmsg(unix.AF_INET)
	m.Prefixlen, m.Index, m.Scope = uint8(prefixOf(o.alias).Bits()), uint32(index), unix.RT_SCOPE_LINK
	flags, peer := uint32(unix.IFA_F_PERMANENT), o.alias.VM
	if o.alias.Pod.Is6() {
		m.Family, m.Scope, peer = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE, o.alias.Pod
		flags |= unix.IFA_F_NODAD
	}
	attrs := []vnl.NetlinkRequestData{
		m, vnl.NewRtAttr(unix.IFA_LOCAL, o.alias.Pod.AsSlice()), vnl.NewRtAttr(unix.IFA_ADDRESS, peer.AsSlice()),
		vnl.NewRtAttr(unix.IFA_FLAGS, vnl.Uint32Attr(flags)),
	}
	if o.add {
		return k.AddAddress(o.tap, o.alias.Pod, attrs...)
	}
	return engine.Ignore(k.Conn.Request(unix.RTM_DELADDR, 0, attrs...), unix.EADDRNOTAVAIL, unix.ENODEV)
}

// ForAlias implements [engine.AliasOp].
func (setAddress) ForAlias() {}

// setNeighbor tells the pod the VM's MAC for good, so that it need not ask.
type setNeighbor struct {
	tap   string
	alias netip.Addr
	mac   mac.Addr
	add   bool
}

func (o setNeighbor) String() string {
	if !o.add {
		return fmt.Sprintf("ip neigh del %s dev %s", o.alias, o.tap)
	}
	return fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", o.alias, o.mac, o.tap)
}

// Inverse deletes or adds it.
func (o setNeighbor) Inverse() engine.Op { return setNeighbor{o.tap, o.alias, o.mac, !o.add} }

// ForAlias implements [engine.AliasOp].
func (setNeighbor) ForAlias() {}

// Do sets it, or deletes it if it is there.
func (o setNeighbor) Do(k *engine.Kernel) error {
	index, err := k.Conn.Index(o.tap)
	if err != nil {
		return err
	}
	header := make(nl.Raw, unix.SizeofNdMsg) // struct ndmsg (linux/neighbour.h)
	header[0] = unix.AF_INET
	if o.alias.Is6() {
		header[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	binary.NativeEndian.PutUint16(header[8:], unix.NUD_PERMANENT)
	attrs := []vnl.NetlinkRequestData{header, vnl.NewRtAttr(unix.NDA_DST, o.alias.AsSlice()), vnl.NewRtAttr(unix.NDA_LLADDR, o.mac[:])}
	if o.add {
		return k.Conn.Request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, attrs...)
	}
	return engine.Ignore(k.Conn.Request(unix.RTM_DELNEIGH, 0, attrs...), unix.ENOENT)
}
