package nl

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Ref names a link that is changed: by its name, which saves the question for its
// index, or by its index if it has one.
type Ref struct {
	Name  string
	Index int
}

func (r Ref) serialize(flags, mask uint32, attrs []nl.NetlinkRequestData) []nl.NetlinkRequestData {
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index, header.Flags, header.Change = int32(r.Index), flags, mask
	all := []nl.NetlinkRequestData{header}
	if r.Index == 0 {
		all = append(all, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(r.Name)))
	}
	return append(all, attrs...)
}

// Set sets attributes of a link.
func (c *Conn) Set(r Ref, attrs ...nl.NetlinkRequestData) error {
	return c.Request(unix.RTM_SETLINK, 0, r.serialize(0, 0, attrs)...)
}

// SetFlags sets those flags of a link (IFF_UP, …) that are in the mask.
func (c *Conn) SetFlags(r Ref, flags, mask uint32) error {
	return c.Request(unix.RTM_SETLINK, 0, r.serialize(flags, mask, nil)...)
}

// SetPort sets an attribute (IFLA_BRPORT_LEARNING, …) of a link as a port of a bridge.
func (c *Conn) SetPort(r Ref, attr int, value []byte) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(attr, value)
	return c.Request(unix.RTM_NEWLINK, 0, r.serialize(0, 0, []nl.NetlinkRequestData{info})...)
}

// SetBridge sets an attribute (IFLA_BR_STP_STATE, …) of a bridge.
func (c *Conn) SetBridge(r Ref, attr int, value []byte) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(attr, value)
	return c.Request(unix.RTM_NEWLINK, 0, r.serialize(0, 0, []nl.NetlinkRequestData{info})...)
}

// Delete deletes a link.
func (c *Conn) Delete(r Ref) error {
	return c.Request(unix.RTM_DELLINK, 0, r.serialize(0, 0, nil)...)
}
