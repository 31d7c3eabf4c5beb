package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Address adds an address to a link that was made, without asking who else has it, or
// deletes it.
type Address struct {
	Link    string
	Prefix  netip.Prefix
	Peer    netip.Addr // whom alone the link leads to by it; zero: to the network
	NoRoute bool       // no route to the network is made
	Delete  bool
}

func (o Address) String() string {
	verb, what, how := "add ", o.Prefix.String(), ""
	if o.Peer.IsValid() {
		what, how = fmt.Sprintf("%s peer %s/%d", o.Prefix.Addr(), o.Peer, o.Prefix.Bits()), " scope link"
	}
	if o.NoRoute {
		how += " noprefixroute"
	}
	if o.Prefix.Addr().Is6() {
		how += " nodad"
	}
	if o.Delete {
		verb, how = "del ", ""
	}
	return "ip addr " + verb + what + " dev " + o.Link + how
}

// Inverse deletes or adds it.
func (o Address) Inverse() Op {
	o.Delete = !o.Delete
	return o
}

// Do adds it, if it is not there, or deletes it, if it is.
func (o Address) Do(k *Kernel) error {
	index, err := k.Conn.Index(o.Link)
	if err != nil {
		return err
	}
	m := vnl.NewIfAddrmsg(unix.AF_INET)
	m.Prefixlen, m.Index = uint8(o.Prefix.Bits()), uint32(index)
	local, peer, flags := o.Prefix.Addr(), o.Prefix.Addr(), uint32(unix.IFA_F_PERMANENT)
	if o.Peer.IsValid() {
		peer, m.Scope = o.Peer, unix.RT_SCOPE_LINK
	}
	if o.NoRoute {
		flags |= unix.IFA_F_NOPREFIXROUTE
	}
	if local.Is6() {
		m.Family = unix.AF_INET6
		flags |= unix.IFA_F_NODAD
	}
	attrs := []vnl.NetlinkRequestData{
		m, vnl.NewRtAttr(unix.IFA_LOCAL, local.AsSlice()), vnl.NewRtAttr(unix.IFA_ADDRESS, peer.AsSlice()),
		vnl.NewRtAttr(unix.IFA_FLAGS, vnl.Uint32Attr(flags)),
	}
	if o.Delete {
		return Ignore(k.Conn.Request(unix.RTM_DELADDR, 0, attrs...), unix.EADDRNOTAVAIL, unix.ENODEV)
	}
	return k.addAddress(o.Link, local, attrs)
}

// addAddress adds an address. Some CNIs turn IPv6 off on all links that are made, and on
// again on their own: where it is off, it is turned on.
func (k *Kernel) addAddress(link string, address netip.Addr, attrs []vnl.NetlinkRequestData) error {
	request := func() error {
		return Ignore(k.Conn.Request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, attrs...), unix.EEXIST)
	}
	err := request()
	if !address.Is6() || !errors.Is(err, unix.EACCES) {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6", []byte("0"), 0); err != nil {
		return Advise(fmt.Errorf("IPv6 is off on %s, as on all links that are made in the pod (net.ipv6.conf.default.disable_ipv6), and can't be turned on: %w: "+
			"prepare the pod from the node, or leave the VM's IPv6 out", link, err))
	}
	return request()
}
