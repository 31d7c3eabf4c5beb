package prepare

import (
	"flag"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var update = flag.Bool("update", false, "write the golden files")

// eth0 is a pod interface as CNIs leave it.
func eth0() discover.Interface {
	return discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 0x01, 0x07}, MTU: 1450,
		Up: true, ARP: true, Ethernet: true,
	}
}

func address(s string) discover.Address {
	return discover.Address{Prefix: netip.MustParsePrefix(s), Message: []byte{1}}
}

func route(destination, gateway string, scope discover.Scope) discover.Route {
	r := discover.Route{
		Destination: netip.MustParsePrefix(destination), Scope: scope, Table: unix.RT_TABLE_MAIN,
		Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_BOOT, Message: make([]byte, unix.SizeofRtMsg),
	}
	if gateway != "" {
		r.Gateway = netip.MustParseAddr(gateway)
	}
	return r
}

func flannel() discover.Interface {
	in := eth0()
	in.Addresses = []discover.Address{address("10.244.1.7/24")}
	in.Routes = []discover.Route{
		route("0.0.0.0/0", "10.244.1.1", 0), route("10.244.0.0/16", "10.244.1.1", 0),
		route("10.244.1.0/24", "", unix.RT_SCOPE_LINK),
	}
	return in
}

func TestPlanGolden(t *testing.T) {
	calico := eth0()
	calico.Addresses = []discover.Address{address("192.168.79.5/32"), address("fd00:79::5/128"), {Prefix: netip.MustParsePrefix("fe80::1/64"), Scope: unix.RT_SCOPE_LINK}}
	calico.Routes = []discover.Route{route("0.0.0.0/0", "169.254.1.1", 0), route("169.254.1.1/32", "", unix.RT_SCOPE_LINK)}
	aws := eth0()
	aws.MTU = 9001
	aws.Addresses = []discover.Address{address("10.0.3.7/32")}
	aws.Routes = calico.Routes
	aws.Neighbors = []discover.Neighbor{{Address: netip.MustParseAddr("169.254.1.1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}}}
	long := flannel()
	long.Name = "a-very-long-net"
	noIPv6 := flannel()
	noIPv6.AddrGenMode = -1

	for _, c := range []struct {
		name string
		in   discover.Interface
		o    Options
	}{
		{"flannel", flannel(), Options{}},
		{"calico", calico, Options{}},
		{"aws", aws, Options{}},
		{"no-ipam", eth0(), Options{}},
		{"no-ipv6", noIPv6, Options{}},
		{"long-name", long, Options{NoGuard: true}},
		{"options", flannel(), Options{
			MAC: mac.Addr{2, 0, 0, 0, 0, 7}, MTU: 1400, Queues: 4, TapOwner: &Owner{107, 108}, NoGuard: true,
			UplinkName: "uplink", BridgeName: "bridge", TapName: "vm",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, err := NewPlan(c.in, c.o)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, "# apply\n"+plan.String()+"# restore\n"+restoreTranscript(t, plan))
		})
	}
}

// restoreTranscript is what takes a prepared pod back.
func restoreTranscript(t *testing.T, p Plan) string {
	t.Helper()
	var b strings.Builder
	for _, o := range p.restoreOps(p.applied()) {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

// applied is the state after an apply.
func (p Plan) applied() state {
	s := p.original()
	up := s.links[0]
	up.Name, up.MAC, up.Master = p.Bridge.Uplink, p.Bridge.UplinkMAC, 11
	if up.AddrGenMode >= 0 {
		up.AddrGenMode = addrGenModeNone
	}
	up.GroupForward = p.groupForward()
	tap, bridge, placeholder := up, up, up
	tap.Index, tap.Name, tap.Kind, tap.MAC = 10, p.Tap.Name, "tun", p.Tap.MAC
	tap.Type, tap.Tun = unix.ARPHRD_ETHER, newTun(p.Tap)
	bridge.Index, bridge.Name, bridge.Kind, bridge.Master, bridge.MAC = 11, p.Bridge.Name, "bridge", 0, p.Bridge.MAC
	placeholder.Index, placeholder.Name, placeholder.Kind, placeholder.Master = 12, p.Interface.Name, "bridge", 0
	placeholder.MAC = p.placeholderMAC()
	s.links = append(s.links[:0], up, tap, bridge, placeholder)
	s.interfaces = map[int]discover.Interface{
		2:  {Name: p.Bridge.Uplink},
		12: {Name: p.Interface.Name, Addresses: p.placeholderAddresses()},
	}
	s.tables, s.filtered = map[tableID]tableNow{}, map[int]bool{}
	if p.Guard {
		s.filtered[tap.Index] = true
		s.tables[p.guard().id()] = made(p.guard(), s.index)
	}
	if len(p.answers().chains) > 0 {
		s.tables[p.answers().id()] = made(p.answers(), s.index)
	}
	return s
}

// made is a table as the kernel has it once it is made.
func made(t table, index func(string) int) tableNow {
	now := tableNow{chains: map[string]chainNow{}}
	for _, c := range t.chains {
		var is chainNow
		if c.hook != "" {
			policy, priority := nftables.ChainPolicyAccept, filterPriorities[t.family]
			is.chain = nftables.Chain{Type: nftables.ChainTypeFilter, Hooknum: hooks[c.hook], Policy: &policy, Priority: &priority}
		}
		for _, r := range c.rules {
			is.rules = append(is.rules, ruleNow{comment: r.digest(t.family, index(r.sendTo))})
		}
		now.chains[c.name] = is
	}
	return now
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	podtest.Golden(t, name+".golden", got, *update)
}

// A plan that is applied leaves nothing to do.
func TestAppliedPlanIsDone(t *testing.T) {
	for _, in := range []discover.Interface{flannel(), eth0()} {
		plan, err := NewPlan(in, Options{})
		if err != nil {
			t.Fatal(err)
		}
		ops, err := plan.applyOps(plan.applied())
		if err != nil {
			t.Fatal(err)
		}
		if len(ops) > 0 {
			t.Errorf("still to do:\n%s", sequence(ops))
		}
		if ops := plan.restoreOps(plan.original()); len(ops) > 0 {
			t.Errorf("to restore in a pod nobody touched:\n%s", sequence(ops))
		}
	}
}

func TestNewPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*discover.Interface, *Options)
		want   string
	}{
		{"loopback", func(in *discover.Interface, _ *Options) { in.Name = "lo" }, "loopback"},
		{"macvlan", func(in *discover.Interface, _ *Options) { in.Kind = "macvlan" }, "only frames for its own MAC"},
		{"macvtap", func(in *discover.Interface, _ *Options) { in.Kind = "macvtap" }, "it is a macvtap: its parent delivers only frames for its own MAC"},
		{"ipvlan", func(in *discover.Interface, _ *Options) { in.Kind = "ipvlan" }, "it is an ipvlan: it has its parent's MAC"},
		{"ipvtap", func(in *discover.Interface, _ *Options) { in.Kind = "ipvtap" }, "give the pod a veth-based network"},
		{"bridge", func(in *discover.Interface, _ *Options) { in.Kind = "bridge" }, "state directory"},
		{"layer 3", func(in *discover.Interface, _ *Options) { in.Kind, in.Ethernet = "netkit", false }, "netkit's L2 mode"},
		{"netkit in layer 3", func(in *discover.Interface, _ *Options) {
			in.Kind, in.MAC, in.ARP = "netkit", mac.Addr{}, false
		}, "it is a netkit without a MAC address"},
		{"no MAC", func(in *discover.Interface, _ *Options) { in.MAC = mac.Addr{} }, "without a MAC"},
		{"no ARP", func(in *discover.Interface, _ *Options) { in.ARP = false }, "ARP is off"},
		{"point to point", func(in *discover.Interface, _ *Options) { in.PointToPoint = true }, "point-to-point"},
		{"a port", func(in *discover.Interface, _ *Options) { in.Master = "br7" }, "port of the bridge or a member of the bond or VRF br7"},
		{"a macvlan on it", func(in *discover.Interface, _ *Options) { in.TakenBy = "macvlan mv0" }, "the macvlan mv0 on it gets its frames"},
		{"by a nexthop object", func(in *discover.Interface, _ *Options) {
			in.Routes[0].NextHop, in.Routes[0].Links = 7, []int{in.Index}
		}, "nexthop object 7"},
		{"tiny MTU", func(in *discover.Interface, _ *Options) { in.MTU = 60 }, "MTU is 60"},
		{"MTU too large", func(_ *discover.Interface, o *Options) { o.MTU = 1500 }, "MTU 1500 is more than eth0 carries"},
		{"multicast MAC", func(_ *discover.Interface, o *Options) { o.MAC = mac.Addr{1, 0, 0, 0, 0, 7} }, "no unicast"},
		{"name with a number to come", func(_ *discover.Interface, o *Options) { o.TapName = "tap%d" }, "no interface name"},
		{"two links of a name", func(_ *discover.Interface, o *Options) { o.TapName, o.BridgeName = "vm", "vm" }, "vm is used twice"},
		{"MTU too small for IPv6", func(in *discover.Interface, o *Options) {
			in.Addresses, o.MTU = append(in.Addresses, address("fd00:79::5/128")), 1279
		}, "give the VM no IPv6"},
		{"negative MTU", func(_ *discover.Interface, o *Options) { o.MTU = -1 }, "MTU -1 is outside"},
		{"negative queues", func(_ *discover.Interface, o *Options) { o.Queues = -1 }, "-1 queues"},
		{"long name", func(_ *discover.Interface, o *Options) { o.TapName = "sixteencharacter" }, "no interface name"},
		{"name with a slash", func(_ *discover.Interface, o *Options) { o.BridgeName = "a/b" }, "no interface name"},
		{"same name twice", func(_ *discover.Interface, o *Options) { o.BridgeName = "eth0" }, "eth0 is used twice"},
		{"queues", func(_ *discover.Interface, o *Options) { o.Queues = 257 }, "257 queues"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, o := flannel(), Options{}
			c.change(&in, &o)
			plan, err := NewPlan(in, o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v and error %v, want an error with %q", plan, err, c.want)
			}
		})
	}
}

func TestLinkName(t *testing.T) {
	for in, want := range map[string]string{
		"eth0":        "tap-eth0",
		"eleven-char": "tap-eleven-char",
	} {
		if got := linkName("tap-", in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	a, b := linkName("tap-", "twelve-chars"), linkName("tap-", "twelve-chart")
	if a == b || len(a) != 15 || !strings.HasPrefix(a, "tap-twelv") {
		t.Errorf("long names became %s and %s", a, b)
	}
}

// newTun is what the kernel says of a tap that was made as planned.
func newTun(t Tap) *nl.Tun {
	tun := &nl.Tun{Tap: true, VNetHdr: true, Persist: true, MultiQueue: t.Queues > 1, Owner: -1, Group: -1}
	if t.Owner != nil {
		tun.Owner, tun.Group = t.Owner.UID, t.Owner.GID
	}
	return tun
}

// A guest has no link-local address that is known to be another's.
func TestOthersLinkLocals(t *testing.T) {
	in := eth0()
	in.Addresses = []discover.Address{address("fd00:10:22::7/64")}
	in.Gateway6 = &discover.Neighbor{Address: netip.MustParseAddr("fe80::1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}}
	in.Neighbors = []discover.Neighbor{
		{Address: netip.MustParseAddr("fe80::99"), MAC: mac.Addr{2, 0, 0, 0, 0, 0x99}},
		{Address: netip.MustParseAddr("fd00:10:22::98"), MAC: mac.Addr{2, 0, 0, 0, 0, 0x98}},
	}
	plan, err := NewPlan(in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	guard := plan.guard().String()
	for _, a := range []string{"fe80::1", "fe80::ff:fe00:1", "fe80::99", "fe80::ff:fe00:99", "fe80::ff:fe00:98"} {
		target := netip.MustParseAddr(a).AsSlice()
		for _, rule := range []string{"ip6 saddr " + a + " counter drop", "icmpv6 type 136 @th,64,128 " + hexOf(target) + " counter drop", "icmpv6 type 135 @th,64,128 " + hexOf(target) + " counter drop"} {
			if !strings.Contains(guard, rule) {
				t.Errorf("no rule %s", rule)
			}
		}
	}
}

// A pod's author may choose a name that a shell would execute.
func TestPlanOfOddNameIsNoScript(t *testing.T) {
	in := flannel()
	in.Name = "a;$(id)"
	plan, err := NewPlan(in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(plan.String()) {
		if !strings.HasPrefix(line, "# ") {
			t.Errorf("a shell would execute %q", line)
		}
	}
}
