package nft

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// flows4, flows6 and ports are sets of each kind.
var (
	flows4 = Set{Name: "flows4", Key: []Datatype{IPv4Addr, InetProto, InetService, InetService}, Timeout: 10 * time.Minute, Size: 65535}
	flows6 = Set{Name: "flows6", Key: []Datatype{IPv6Addr, InetProto, InetService, InetService}, Timeout: time.Hour, Size: 1000}
	ids4   = Set{Name: "ids4", Key: []Datatype{IPv4Addr, InetProto, Number16}, Of: IPDatagram, Timeout: time.Minute, Size: 1000}
	ids6   = Set{Name: "ids6", Key: []Datatype{IPv6Addr, InetProto, Number32}, Of: IP6Datagram, Timeout: time.Minute, Size: 1000}
	ports  = Set{Name: "ports", Key: []Datatype{InetService}, Ranges: []Range{{9000, 9010}, {8080, 8080}, {9005, 9020}, {9021, 9021}}}
)

// redirecting has what a table that shares an address between a pod and a VM is made of.
func redirecting(sets ...Set) Table {
	ip, ip6 := EtherType.Is(IP), EtherType.Is(IP6)
	leavesIP, leavesIP6 := EtherProtocol.Is(IP), EtherProtocol.Is(IP6)
	tcp := L4Protocol.Is(TCP)
	pod, vm := netip.MustParseAddr("169.254.100.1"), netip.MustParseAddr("10.244.3.9")
	pod6, vm6 := netip.MustParseAddr("fd00:a11::1"), netip.MustParseAddr("fd00:3::9")
	own := mac.Addr{2, 0, 0, 0, 0, 1}
	return Table{Family: Netdev, Name: Prefix + "eth0", Sets: sets, Chains: []Chain{
		{Name: "egress", Hook: "egress", Device: "v0", Rules: []Rule{
			{FrameMark.Is(0x564c4e), Accept},
			{FrameMark.Not(0), Drop},
			{leavesIP, tcp, UpdateSet(flows4, 0, IPDestination, L4Protocol, DestinationPort, SourcePort), counted("flow")},
			{leavesIP6, tcp, UpdateSet(flows6, 90*time.Second, IP6Destination, L4Protocol, DestinationPort, SourcePort), counted("flow")},
			{leavesIP, tcp, AddToSet(flows4, 5*time.Second, IPDestination, L4Protocol, DestinationPort, SourcePort), Accept},
			{leavesIP, IPDestination.Is(pod), IPDestination.Set(vm), IPSource.Set(pod), Count},
			{leavesIP6, IP6Destination.Is(pod6), IP6Destination.Set(vm6), IP6Source.Set(pod6), Count},
		}},
		{Name: "ingress", Hook: "ingress", Device: "v0", Rules: []Rule{
			{EtherSource.Is(own), Judged("own", Drop)},
			{PacketType.Is(Multicast), CopyTo("v1"), Accept},
			{PacketType.Not(Broadcast), PacketType.Not(ToOther), EtherDestination.Masked(mac.Addr{1}).Is(mac.Addr{1}), CopyTo("v1"), Accept},
			{EtherType.Is(ARP), CopyTo("v1"), Accept},
			{ip, IPProtocol.Is(ICMP), ICMPType.In(11, 12), counted("error"), CopyTo("v1"), Accept},
			{ip, tcp, InSet(ports, DestinationPort), Accept},
			{ip6, L4Protocol.Is(UDP), NotInSet(ports, SourcePort), Accept},
			{ip, InSet(flows4, IPSource, L4Protocol, SourcePort, DestinationPort), UpdateSet(flows4, 0, IPSource, L4Protocol, SourcePort, DestinationPort), Accept},
			{ip6, NotInSet(flows6, IP6Source, L4Protocol, SourcePort, DestinationPort), counted("vm"), ForwardTo("v1")},
			{ip, IPBegun, UpdateSet(ids4, 0, IPSource, IPProtocol, IPID), Count},
			{ip6, IP6FragmentOffset.Is(0), UpdateSet(ids6, 0, IP6Source, IP6FragmentNextHeader, IP6FragmentID), Count},
			{ip, NotInSet(ids4, IPSource, IPProtocol, IPID), IPWhole, Count},
			{ip6, InSet(ids6, IP6Source, IP6FragmentNextHeader, IP6FragmentID), Count},
			{ip, tcp, TCPFlags.Masked(FIN | RST).Not(0), Count},
			{ip, tcp, TCPFlags.Masked(SYN | ACK).Is(SYN), Count},
			{ip, tcp, TCPFlags.Masked(SYN | ACK).Is(SYN | ACK), Count},
			{ip, tcp, TCPUnderWay, DeleteFromSet(flows4, IPSource, L4Protocol, SourcePort, DestinationPort), Count},
			{ip, IPDestination.Is(pod), IPSource.Set(vm), EtherDestination.Set(own), PacketType.Set(ToHost), Accept},
			{EtherDestination.Set(own), GoTo("out")},
		}},
		{Name: "out", Rules: []Rule{{FrameMark.Set(0x564c4e), ForwardTo("v1")}}},
	}}
}

// A shell that is given the text makes what the kernel is given, also where it replaces
// what is there, and what frames have put into sets stays then.
func TestTextMakesTheSetsAndRules(t *testing.T) {
	t.Parallel()
	scripted, written := podtest.New(t), podtest.New(t)
	first := redirecting(flows4, flows6, ids4, ids6, ports)
	other := ports
	other.Ranges = []Range{{0, 79}, {443, 65535}}
	bigger := flows6
	bigger.Size++
	fewer := redirecting(flows4, bigger, ids4, ids6, other)
	fewer.Chains = fewer.Chains[1:]
	for _, ns := range []*podtest.NS{scripted, written} {
		ns.IP(t, "link add v0 type veth peer v1")
	}
	for i, table := range []Table{first, first, fewer, first} {
		for _, ns := range []*podtest.NS{scripted, written} {
			now := tableIn(t, ns, table)
			if ns == scripted {
				ns.Run(t, "sh", "-e", "-c", (Change{Table: table, Now: now}).Text())
			} else {
				inside(t, ns, func() error { return Write(Change{Table: table, Now: now}) })
			}
			if now = tableIn(t, ns, table); now == nil {
				t.Fatal("there is no table")
			} else if err := table.Differs(*now, true, indexIn(t, ns)); err != nil && ns == written {
				t.Errorf("%d: as it was made it %v", i, err)
			}
			if i == 0 {
				ns.Run(t, "nft", "add element "+table.String()+" flows4 { 192.0.2.1 . tcp . 80 . 30000 } ; "+
					"add element "+table.String()+" flows6 { 2001:db8::1 . tcp . 80 . 30000 } ; "+
					"add element "+table.String()+" ids4 { 192.0.2.1 . udp . 7 } ; add element "+table.String()+" ids6 { 2001:db8::1 . udp . 70000 }")
			}
		}
		if d := podtest.Diff(podtest.Expressions(t, written), podtest.Expressions(t, scripted)); d != "" {
			t.Errorf("%d: nft makes of the text (-written +scripted):\n%s", i, d)
		}
		sets := written.Run(t, "nft", "list", "sets")
		if d := podtest.Diff(withoutExpiry(sets), withoutExpiry(scripted.Run(t, "nft", "list", "sets"))); d != "" {
			t.Errorf("%d: nft makes sets of the text (-written +scripted):\n%s", i, d)
		}
		if !strings.Contains(sets, "192.0.2.1 .") || strings.Contains(sets, "2001:db8::1 . tcp") != (i < 2) {
			t.Errorf("%d: what was in sets is now:\n%s", i, sets)
		}
	}
}

// More ranges than a message has room for, and a socket by itself, are not too many.
func TestLargeSet(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	all := ports
	all.Ranges = nil
	for port := uint16(1); port < 20000; port += 2 {
		all.Ranges = append(all.Ranges, Range{port, port})
	}
	table := Table{Family: Netdev, Name: Prefix + "eth0", Sets: []Set{all}}
	inside(t, ns, func() error { return Write(Change{Table: table}) })
	if now := tableIn(t, ns, table); now == nil {
		t.Fatal("there is no table")
	} else if err := table.Differs(*now, true, none); err != nil {
		t.Errorf("as it was made it %v", err)
	}
}

// withoutExpiry is a list of sets without what changes by itself.
func withoutExpiry(sets string) string {
	var b strings.Builder
	before := ""
	for word := range strings.FieldsSeq(sets) {
		if before != "expires" {
			fmt.Fprintln(&b, word)
		}
		before = word
	}
	return b.String()
}

// tableIn is the table as the namespace has it; nil: it has none.
func tableIn(t *testing.T, ns *podtest.NS, table Table) (now *Present) {
	t.Helper()
	inside(t, ns, func() error {
		all, err := Read()
		if p, there := all[table.ID()]; there {
			now = &p
		}
		return err
	})
	return now
}

func indexIn(t *testing.T, ns *podtest.NS) func(string) int {
	t.Helper()
	return func(link string) (index int) {
		inside(t, ns, func() error {
			l, err := net.InterfaceByName(link)
			if err == nil {
				index = l.Index
			}
			return err
		})
		return index
	}
}

// A set that is kept, and has no room for the connections that there are, is no reason not to
// replace the table.
func TestConnectionsBeyondSize(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link set lo up")
	l := ns.Listen(t, "127.0.0.1:80")
	table := redirecting()
	table.Sets, table.Chains = []Set{{
		Name: "flows4", Key: flows4.Key, Timeout: time.Minute, Size: 1, Connected: Connected{From: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Timeout: time.Second},
	}}, nil
	ns.In(t, func() error { return Write(Change{Table: table}) })
	ns.Run(t, "nft", "add element netdev "+table.Name+" flows4 { 127.0.0.1 . tcp . 1 . 1 }")
	for range 2 {
		ns.In(t, func() error {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				t.Cleanup(func() { conn.Close() })
			}
			return err
		})
	}
	table.Chains = []Chain{{Name: "more"}}
	ns.In(t, func() error {
		all, err := Read()
		if err != nil {
			return err
		}
		now := all[table.ID()]
		return Write(Change{Table: table, Now: &now})
	})
	if listed := ns.Run(t, "nft", "list", "ruleset"); !strings.Contains(listed, "chain more") || !strings.Contains(listed, "127.0.0.1 . tcp . 1 . 1") {
		t.Errorf("there is\n%s", listed)
	}
}

// counted counts a frame as label, and lets it go on.
func counted(label any) Part {
	p := Count
	p.label = label
	return p
}
