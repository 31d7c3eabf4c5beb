package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bare is what prepare's changes cost at least: the same ones as plain calls,
// each made once. Nothing is read, checked, recorded or undone, and whatever is
// known beforehand is known beforehand.
type bare struct {
	socket *nl.SocketHandle
	err    error
}

// prepareBare makes the calls in the current namespace, for a pod whose
// interface has that index.
func prepareBare(p *pod, index int) error {
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer socket.Close()
	b := &bare{socket: &nl.SocketHandle{Socket: socket}}
	for _, name := range []string{"arptables", "ip6tables", "iptables"} {
		b.do(os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0))
	}
	const tap, bridge, placeholder = 1001, 1002, 1003 // indexes
	b.tap(tap)
	b.set(tap, macOf(2), mtu(1450))
	b.set(tap, noIPv6())
	b.bridge(bridge, "br-"+podLink, 1)
	b.do(guardBare(p))
	b.set(tap, master(bridge))
	b.up(tap, true)

	b.request(unix.RTM_DELADDR, 0, message(unix.AF_INET, byte(p.ip.Bits()), 0, 0, index), nl.NewRtAttr(unix.IFA_LOCAL, p.ip.Addr().AsSlice()))
	b.up(index, false) // and all routes and IPv6 addresses go
	b.set(index, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("up-"+podLink)))
	b.set(index, macOf(3))
	b.set(index, noIPv6())
	b.set(index, master(bridge))
	b.request(unix.RTM_NEWLINK, 0, link(index), noLearning())
	b.up(index, true)

	b.bridge(placeholder, podLink, 4)
	b.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message(unix.AF_INET, byte(p.ip.Bits()), 0, 0, placeholder),
		nl.NewRtAttr(unix.IFA_LOCAL, p.ip.Addr().AsSlice()),
		nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_PERMANENT|unix.IFA_F_NOPREFIXROUTE)))
	return b.err
}

// do notes an error; after one nothing is done.
func (b *bare) do(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *bare) request(typ, flags int, data ...nl.NetlinkRequestData) {
	if b.err != nil {
		return
	}
	r := nl.NewNetlinkRequest(typ, unix.NLM_F_ACK|flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: b.socket}
	for _, d := range data {
		r.AddData(d)
	}
	if _, err := r.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		b.err = fmt.Errorf("netlink message of type %d: %w", typ, err)
	}
}

func (b *bare) set(index int, attrs ...nl.NetlinkRequestData) {
	b.request(unix.RTM_SETLINK, 0, append([]nl.NetlinkRequestData{link(index)}, attrs...)...)
}

func (b *bare) up(index int, up bool) {
	m := link(index)
	m.Change = unix.IFF_UP
	if up {
		m.Flags = unix.IFF_UP
	}
	b.request(unix.RTM_NEWLINK, 0, m)
}

func (b *bare) bridge(index int, name string, last byte) {
	m := link(index)
	m.Flags, m.Change = unix.IFF_NOARP, unix.IFF_NOARP
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, []byte{0})
	b.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m,
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), mtu(1450), macOf(last), info)
	b.set(index, noIPv6())
	b.up(index, true)
}

func (b *bare) tap(index int) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if b.do(err); err != nil {
		return
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("tap-" + podLink)
	if b.do(err); err != nil {
		return
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	b.do(unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, index))
	b.do(unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
	b.do(unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
}

func link(index int) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	return m
}

// rawMessage is struct ifaddrmsg.
type rawMessage []byte

func message(family, bits, flags, scope byte, index int) rawMessage {
	return binary.NativeEndian.AppendUint32([]byte{family, bits, flags, scope}, uint32(index))
}

func (m rawMessage) Len() int          { return len(m) }
func (m rawMessage) Serialize() []byte { return m }

func macOf(last byte) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_ADDRESS, net.HardwareAddr{2, 0, 0, 0, 0, last})
}
func mtu(n uint32) *nl.RtAttr { return nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(n)) }

func master(index uint32) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(index))
}

func noIPv6() *nl.RtAttr {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{1})
	return spec
}

func noLearning() *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(nl.IFLA_BRPORT_LEARNING, []byte{0})
	return info
}

// guardBare is the script's guard, in one transaction.
func guardBare(p *pod) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "guard"})
	chain := c.AddChain(&nftables.Chain{
		Table: table, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	drop := func(exprs ...[]expr.Any) {
		r := &nftables.Rule{Table: table, Chain: chain}
		for _, e := range exprs {
			r.Exprs = append(r.Exprs, e...)
		}
		r.Exprs = append(r.Exprs, &expr.Verdict{Kind: expr.VerdictDrop})
		c.AddRule(r)
	}
	tap := make([]byte, unix.IFNAMSIZ)
	copy(tap, "tap-"+podLink)
	from, to := meta(expr.MetaKeyIIFNAME, tap), meta(expr.MetaKeyOIFNAME, tap)
	udp, ip, arp := meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_UDP}), etherType(unix.ETH_P_IP), etherType(unix.ETH_P_ARP)
	drop(from, payload(expr.CmpOpNeq, expr.PayloadBaseLLHeader, 6, p.mac))
	drop(from, udp, payload(expr.CmpOpEq, expr.PayloadBaseTransportHeader, 2, []byte{0, 67}))
	drop(from, ip, payload(expr.CmpOpNeq, expr.PayloadBaseNetworkHeader, 12, p.ip.Addr().AsSlice()))
	drop(from, arp, payload(expr.CmpOpNeq, expr.PayloadBaseNetworkHeader, 14, p.ip.Addr().AsSlice()),
		payload(expr.CmpOpNeq, expr.PayloadBaseNetworkHeader, 14, []byte{0, 0, 0, 0}))
	drop(to, udp, payload(expr.CmpOpEq, expr.PayloadBaseTransportHeader, 2, []byte{0, 68}))
	return c.Flush()
}

func meta(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

func etherType(t uint16) []expr.Any {
	return payload(expr.CmpOpEq, expr.PayloadBaseLLHeader, 12, binary.BigEndian.AppendUint16(nil, t))
}

func payload(op expr.CmpOp, base expr.PayloadBase, offset uint32, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(value))},
		&expr.Cmp{Op: op, Register: 1, Data: value},
	}
}
