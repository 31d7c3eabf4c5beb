package nl

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Messages calls each with the kernel's messages on all addresses, routes, rules or
// neighbours, as get says (RTM_GETADDR, RTM_GETROUTE, RTM_GETRULE, RTM_GETNEIGH), of both
// families and in the kernel's order. A message has a header of 8 bytes (ifaddrmsg) or
// 12 (rtmsg, fib_rule_hdr, ndmsg), whose first is the family.
func (c *Conn) Messages(get int, each func(message []byte)) error {
	return c.messages(get, 0, each)
}

// Proxies is Messages of the addresses that links answer for (ip neigh add proxy),
// which the kernel has a table of its own for (neigh_dump_info, net/core/neighbour.c).
func (c *Conn) Proxies(each func(message []byte)) error {
	return c.messages(unix.RTM_GETNEIGH, unix.NTF_PROXY, each)
}

func (c *Conn) messages(get int, neighborFlags byte, each func([]byte)) error {
	header := make(Raw, unix.SizeofRtMsg)
	header[10] = neighborFlags // the place of ndm_flags
	const answer = unix.RTM_NEWADDR - unix.RTM_GETADDR
	msgs, err := c.dump(get, uint16(get+answer), header)
	if get == unix.RTM_GETRULE && errors.Is(err, unix.EOPNOTSUPP) { // a kernel without rules
		return nil
	}
	if err != nil {
		what := map[int]string{
			unix.RTM_GETADDR: "addresses", unix.RTM_GETROUTE: "routes", unix.RTM_GETRULE: "rules", unix.RTM_GETNEIGH: "neighbours",
		}
		return fmt.Errorf("read %s: %w", what[get], err)
	}
	for _, m := range msgs { // others may be among them, such as multicast routes
		if len(m) >= unix.SizeofRtMsg && (m[0] == unix.AF_INET || m[0] == unix.AF_INET6) {
			each(m)
		}
	}
	return nil
}

// LinkTo returns the index of the link by which the namespace sends what is to an address,
// as its rules and routes say; 0: by none.
func (c *Conn) LinkTo(a netip.Addr) (index int, err error) {
	header := make(Raw, unix.SizeofRtMsg)
	header[0], header[1] = unix.AF_INET, byte(a.BitLen())
	if a.Is6() {
		header[0] = unix.AF_INET6
	}
	messages, err := c.socket.Execute(unix.RTM_GETROUTE, 0, serialize([]nl.NetlinkRequestData{header, nl.NewRtAttr(unix.RTA_DST, a.AsSlice())}))
	var unreachable unix.Errno // of a route that says so, or of none at all
	if err != nil && !errors.As(err, &unreachable) {
		return 0, fmt.Errorf("read route to %s: %w", a, err)
	}
	for _, m := range payloads(messages, unix.RTM_NEWROUTE) {
		index = Attributes(m[min(len(m), unix.SizeofRtMsg):]).Int(unix.RTA_OIF, 0)
	}
	return index, nil
}

// Raw is a part of a request as it is sent.
type Raw []byte

// Len implements [nl.NetlinkRequestData].
func (r Raw) Len() int { return len(r) }

// Serialize implements [nl.NetlinkRequestData].
func (r Raw) Serialize() []byte { return r }

// FilterNames returns the names of the BPF filters of tc(8) at a place (HANDLE_MIN_INGRESS
// or HANDLE_MIN_EGRESS) of the link with that index: none where there can be none. It
// needs no privileges.
func (c *Conn) FilterNames(index int, at uint32) ([]string, error) {
	msgs, err := c.dump(unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: at})
	if err != nil {
		return nil, fmt.Errorf("read filters: %w", err)
	}
	var names []string
	for _, m := range msgs {
		if a := Attributes(m[min(len(m), nl.SizeofTcMsg):]); a.Text(nl.TCA_KIND) == "bpf" {
			names = append(names, a.In(nl.TCA_OPTIONS).Text(nl.TCA_BPF_NAME))
		}
	}
	return names, nil
}
