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

// addressOp gives the tap the pod's alias.
func (w wiring) addressOp(a guest.Alias) engine.Op {
	o := engine.Address{Link: w.NIC.Tap, Prefix: prefixOf(a)}
	if a.Pod.Is4() {
		o.Peer = a.VM
	}
	return engine.ForAlias{Op: o}
}

// neighborOp tells the pod the VM's MAC by an address.
func (w wiring) neighborOp(a netip.Addr) engine.Op {
	return engine.ForAlias{Op: setNeighbor{w.NIC.Tap, a, w.NIC.MAC, true}}
}

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
