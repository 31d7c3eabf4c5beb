package nl

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// attrAddressProtocol is IFA_PROTO, and AddressByRouter is IFAPROT_KERNEL_RA: the
// kernel made the address of a router's advertisement (linux/if_addr.h).
const (
	attrAddressProtocol = 11
	AddressByRouter     = 2
)

// Address is an address of a link (linux/if_addr.h).
type Address struct {
	Index  int
	Prefix netip.Prefix
	Scope  uint8  // RT_SCOPE_UNIVERSE, …
	Flags  uint32 // IFA_F_PERMANENT, IFA_F_TENTATIVE, …
	// Protocol is who made it (AddressByRouter, …); 0: unknown, as always before
	// Linux 5.18.
	Protocol uint8
	Message  []byte // ifaddrmsg and attributes as the kernel sent them
}

// Neighbor is an entry of the neighbour table (linux/neighbour.h).
type Neighbor struct {
	Index   int
	State   uint16 // NUD_PERMANENT, …
	Address netip.Addr
	MAC     mac.Addr
	Message []byte // ndmsg and attributes as the kernel sent them
}

// Addresses reads all addresses of all links, in the kernel's order.
func (c *Conn) Addresses() ([]Address, error) {
	msgs, err := c.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	return parseAll(ofFamilies(msgs, unix.AF_INET, unix.AF_INET6), parseAddress)
}

// Neighbors reads the neighbour tables of both families.
func (c *Conn) Neighbors() ([]Neighbor, error) {
	return c.neighbors(0)
}

// Proxies reads the addresses that links answer for (ip neigh add proxy), which
// the kernel has a table of its own for (neigh_dump_info, net/core/neighbour.c).
func (c *Conn) Proxies() ([]Neighbor, error) {
	return c.neighbors(unix.NTF_PROXY)
}

func (c *Conn) neighbors(flags byte) ([]Neighbor, error) {
	header := make(raw, unix.SizeofNdMsg)
	header[10] = flags
	msgs, err := c.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, header)
	if err != nil {
		return nil, fmt.Errorf("read neighbours: %w", err)
	}
	return parseAll(ofFamilies(msgs, unix.AF_INET, unix.AF_INET6), parseNeighbor)
}

// ofFamilies returns the messages of these families, which the first byte of an
// address, a route, a rule and a neighbour tells. A dump may have others in it:
// where a family is not there (ipv6.disable=1), the kernel answers with all that
// are (rtnetlink_rcv_msg, net/core/rtnetlink.c).
func ofFamilies(msgs [][]byte, families ...byte) [][]byte {
	return slices.DeleteFunc(msgs, func(m []byte) bool { return len(m) == 0 || !slices.Contains(families, m[0]) })
}

// raw is a header of zeros but for what is set in it.
type raw []byte

func (r raw) Len() int          { return len(r) }
func (r raw) Serialize() []byte { return r }

func parseAll[T any](msgs [][]byte, parse func([]byte) (T, bool, error)) ([]T, error) {
	out := make([]T, 0, len(msgs))
	for _, m := range msgs {
		v, ok, err := parse(m)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, v)
		}
	}
	return out, nil
}

// attributes splits what follows a fixed header of the given size.
func attributes(what string, m []byte, header int) ([]syscall.NetlinkRouteAttr, error) {
	if len(m) < header {
		return nil, fmt.Errorf("parse %s message: %d bytes, want at least %d", what, len(m), header)
	}
	attrs, err := nl.ParseRouteAttr(m[header:])
	if err != nil {
		return nil, fmt.Errorf("parse %s message: %w", what, err)
	}
	return attrs, nil
}

// attrType strips the flags that newer kernels set on nested attributes.
func attrType(a syscall.NetlinkRouteAttr) uint16 {
	return a.Attr.Type & nl.NLA_TYPE_MASK
}

func parseAddress(m []byte) (Address, bool, error) {
	attrs, err := attributes("address", m, unix.SizeofIfAddrmsg)
	if err != nil {
		return Address{}, false, err
	}
	bits := int(m[1])
	a := Address{
		Index: int(uint32Of(m[4:8])), Flags: uint32(m[2]), Scope: m[3],
		Message: slices.Clone(m),
	}
	var address, local netip.Addr
	for _, at := range attrs {
		switch attrType(at) {
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(at.Value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(at.Value)
		case unix.IFA_FLAGS:
			a.Flags = uint32Of(at.Value)
		case attrAddressProtocol:
			a.Protocol = at.Value[0]
		}
	}
	// IFA_ADDRESS is the peer's where there is one (linux/if_addr.h).
	if local.IsValid() {
		address = local
	}
	a.Prefix = netip.PrefixFrom(address, bits)
	return a, a.Prefix.IsValid(), nil
}

func parseNeighbor(m []byte) (Neighbor, bool, error) {
	attrs, err := attributes("neighbour", m, unix.SizeofNdMsg)
	if err != nil {
		return Neighbor{}, false, err
	}
	n := Neighbor{
		Index: int(uint32Of(m[4:8])), State: binary.NativeEndian.Uint16(m[8:10]),
		Message: slices.Clone(m),
	}
	for _, a := range attrs {
		switch attrType(a) {
		case unix.NDA_DST:
			n.Address, _ = netip.AddrFromSlice(a.Value)
		case unix.NDA_LLADDR:
			n.MAC = mac.Of(a.Value)
		}
	}
	return n, n.Address.IsValid(), nil
}

func uint32Of(b []byte) uint32 {
	return binary.NativeEndian.Uint32(b)
}
