package bridge_test

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

func address(s string) discover.Address {
	return discover.Address{Prefix: netip.MustParsePrefix(s), Message: make([]byte, 8)}
}

// flannel is a pod interface as that CNI leaves it.
func flannel() discover.Interface {
	return discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 0x01, 0x07}, MTU: 1450,
		Up: true, ARP: true, Ethernet: true,
		Addresses: []discover.Address{address("10.244.1.7/24")},
		Routes: []discover.Route{{
			Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.244.1.1"), Links: []int{2},
			Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_BOOT, Message: make([]byte, unix.SizeofRtMsg),
		}},
	}
}

func TestNewPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*discover.Interface, *prepare.Options)
		want   string
	}{
		{"loopback", func(in *discover.Interface, _ *prepare.Options) { in.Name = "lo" }, "loopback"},
		{"macvlan", func(in *discover.Interface, _ *prepare.Options) { in.Kind = "macvlan" }, "only frames for its own MAC"},
		{"macvtap", func(in *discover.Interface, _ *prepare.Options) { in.Kind = "macvtap" }, "it is a macvtap: its parent delivers only frames for its own MAC"},
		{"ipvlan", func(in *discover.Interface, _ *prepare.Options) { in.Kind = "ipvlan" }, "it is an ipvlan: it has its parent's MAC"},
		{"ipvtap", func(in *discover.Interface, _ *prepare.Options) { in.Kind = "ipvtap" }, "give the pod a veth-based network"},
		{"bridge", func(in *discover.Interface, _ *prepare.Options) { in.Kind = "bridge" }, "state directory"},
		{"layer 3", func(in *discover.Interface, _ *prepare.Options) { in.Kind, in.Ethernet = "netkit", false }, "netkit's L2 mode"},
		{"netkit in layer 3", func(in *discover.Interface, _ *prepare.Options) {
			in.Kind, in.MAC, in.ARP = "netkit", mac.Addr{}, false
		}, "it is a netkit without a MAC address"},
		{"no MAC", func(in *discover.Interface, _ *prepare.Options) { in.MAC = mac.Addr{} }, "without a MAC"},
		{"no ARP", func(in *discover.Interface, _ *prepare.Options) { in.ARP = false }, "ARP is off"},
		{"point to point", func(in *discover.Interface, _ *prepare.Options) { in.PointToPoint = true }, "point-to-point"},
		{"a port", func(in *discover.Interface, _ *prepare.Options) { in.Master = "br7" }, "port of the bridge or a member of the bond or VRF br7"},
		{"a macvlan on it", func(in *discover.Interface, _ *prepare.Options) { in.TakenBy = "macvlan mv0" }, "the macvlan mv0 on it receives its frames"},
		{"by a nexthop object", func(in *discover.Interface, _ *prepare.Options) {
			in.Shared = []discover.SharedRoute{{Route: in.Routes[0], Why: "it uses nexthop object 7"}}
		}, "nexthop object 7"},
		{"tiny MTU", func(in *discover.Interface, _ *prepare.Options) { in.MTU = 60 }, "MTU 60 is outside"},
		{"MTU too large", func(_ *discover.Interface, o *prepare.Options) { o.MTU = 1500 }, "MTU 1500 is more than eth0 carries"},
		{"multicast MAC", func(_ *discover.Interface, o *prepare.Options) { o.MAC = mac.Addr{1, 0, 0, 0, 0, 7} }, "not a unicast"},
		{"name with a number to come", func(_ *discover.Interface, o *prepare.Options) { o.Names = map[string]string{"tap": "tap%d"} }, "not an interface name"},
		{"two links of a name", func(_ *discover.Interface, o *prepare.Options) {
			o.Names = map[string]string{"tap": "vm", "bridge": "vm"}
		}, "vm is used twice"},
		{"MTU too small for IPv6", func(in *discover.Interface, o *prepare.Options) {
			in.Addresses, o.MTU = append(in.Addresses, address("fd00:79::5/128")), 1279
		}, "give the VM no IPv6"},
		{"negative MTU", func(_ *discover.Interface, o *prepare.Options) { o.MTU = -1 }, "MTU -1 is outside"},
		{"negative queues", func(_ *discover.Interface, o *prepare.Options) { o.Queues = -1 }, "-1 queues"},
		{"long name", func(_ *discover.Interface, o *prepare.Options) {
			o.Names = map[string]string{"tap": "sixteencharacter"}
		}, "not an interface name"},
		{"name with a slash", func(_ *discover.Interface, o *prepare.Options) { o.Names = map[string]string{"bridge": "a/b"} }, "not an interface name"},
		{"same name twice", func(_ *discover.Interface, o *prepare.Options) { o.Names = map[string]string{"bridge": "eth0"} }, "eth0 is used twice"},
		{"queues", func(_ *discover.Interface, o *prepare.Options) { o.Queues = 257 }, "257 queues"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, o := flannel(), prepare.Options{}
			c.change(&in, &o)
			plan, err := prepare.NewPlan(in, o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v and error %v, want an error with %q", plan, err, c.want)
			}
		})
	}
}

// A pod's author may choose a name that a shell would execute.
func TestPlanOfOddNameIsNoScript(t *testing.T) {
	const odd = "a;$(id)"
	for _, tt := range []struct {
		name    string
		options prepare.Options
	}{
		{odd, prepare.Options{}},
		{"eth0", prepare.Options{Names: map[string]string{prepare.TapRole: odd}}},
	} {
		in := flannel()
		in.Name = tt.name
		plan, err := prepare.NewPlan(in, tt.options)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(plan.String()) {
			if !strings.HasPrefix(line, "# ") {
				t.Errorf("a shell would execute %q", line)
			}
		}
	}
}
