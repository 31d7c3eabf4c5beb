package bridge

import (
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
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
		o    engine.Options
	}{
		{"flannel", flannel(), engine.Options{}},
		{"calico", calico, engine.Options{}},
		{"aws", aws, engine.Options{}},
		{"no-ipam", eth0(), engine.Options{}},
		{"no-ipv6", noIPv6, engine.Options{}},
		{"long-name", long, engine.Options{NoGuard: true}},
		{"options", flannel(), engine.Options{
			MAC: mac.Addr{2, 0, 0, 0, 0, 7}, MTU: 1400, Queues: 4, TapOwner: &engine.Owner{UID: 107, GID: 108}, NoGuard: true,
			Names: map[string]string{"uplink": "uplink", "bridge": "bridge", "tap": "vm"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wire(t, c.in, c.o)
			apply, err := w.Apply(engine.Original(c.in))
			if err != nil {
				t.Fatal(err)
			}
			restore, _, err := w.Restore(w.applied())
			if err != nil {
				t.Fatal(err)
			}
			podtest.Golden(t, c.name+".golden", "# apply\n"+lines(apply)+"# restore\n"+lines(restore), *update)
		})
	}
}

func wire(t *testing.T, in discover.Interface, o engine.Options) wiring {
	t.Helper()
	w, err := Datapath{}.Wire(in, o)
	if err != nil {
		t.Fatal(err)
	}
	return w.(wiring)
}

func lines(st engine.Steps) string {
	var b strings.Builder
	for _, o := range st.Ops() {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

// applied is the state after an apply.
func (w wiring) applied() *engine.State {
	s := engine.Original(w.Pod)
	up := s.Links[0]
	up.Name, up.MAC, up.Master, up.Flags = w.Uplink.Name, w.Uplink.MAC, 11, unix.IFF_UP|unix.IFF_NOARP
	if up.AddrGenMode >= 0 {
		up.AddrGenMode = engine.AddrGenModeNone
	}
	up.GroupForward, up.Port = w.groupForward(), newPort&^nl.Settings(0).With(vnl.IFLA_BRPORT_LEARNING)
	tap, bridge, placeholder := up, up, up
	tap.Index, tap.Name, tap.Kind, tap.MAC, tap.MTU = 10, w.NIC.Tap, "tun", w.NIC.TapMAC, w.NIC.MTU
	tap.Type, tap.Tun, tap.Port = unix.ARPHRD_ETHER, newTun(w.Tap()), newPort
	bridge.Index, bridge.Name, bridge.Kind, bridge.Master, bridge.MAC, bridge.MTU = 11, w.Bridge.Name, nl.KindBridge, 0, w.Bridge.MAC, w.NIC.MTU
	placeholder.Index, placeholder.Name, placeholder.Kind, placeholder.Master, placeholder.MAC = 12, w.Pod.Name, nl.KindBridge, 0, w.Placeholder.MAC
	s.Links = append(s.Links[:0], up, tap, bridge, placeholder)
	var addresses []discover.Address
	for _, p := range w.Addresses {
		addresses = append(addresses, discover.Address{Prefix: p, Message: []byte{1}})
	}
	s.Interfaces = map[int]discover.Interface{2: {Name: w.Uplink.Name}, 12: {Name: w.Pod.Name, Addresses: addresses}}
	s.Routes = nil
	s.Tables, s.Filtered = map[nft.ID]nft.Present{}, map[int]bool{tap.Index: w.NIC.Guard}
	for _, t := range w.Tables() {
		s.Tables[t.ID()] = t.Made(s.Index)
	}
	return s
}

// newTun is what the kernel says of a tap that was made as planned.
func newTun(t engine.Tap) *nl.Tun {
	tun := &nl.Tun{Tap: true, Persist: true, MultiQueue: t.Queues > 1, Owner: -1, Group: -1}
	if t.Owner != nil {
		tun.Owner, tun.Group = t.Owner.UID, t.Owner.GID
	}
	return tun
}

// A plan that is applied leaves nothing to do, and has no differences.
func TestAppliedPlanIsDone(t *testing.T) {
	for _, in := range []discover.Interface{flannel(), eth0()} {
		w := wire(t, in, engine.Options{})
		st, err := w.Apply(w.applied())
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Ops()) > 0 {
			t.Errorf("still to do:\n%s", lines(st))
		}
		if st, _, err := w.Restore(engine.Original(in)); err != nil || len(st.Ops()) > 0 {
			t.Errorf("to restore in a pod nobody touched:\n%s%v", lines(st), err)
		}
	}
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
	guard := (nft.Change{Table: guardTable(wire(t, in, engine.Options{}).NIC, "up-eth0")}).Text()
	for _, a := range []string{"fe80::1", "fe80::ff:fe00:1", "fe80::99", "fe80::ff:fe00:99", "fe80::ff:fe00:98"} {
		target := netip.MustParseAddr(a).AsSlice()
		for _, rule := range []string{"ip6 saddr " + a + " counter drop", "icmpv6 type 136 @th,64,128 " + fmt.Sprintf("0x%x", target) + " counter drop", "icmpv6 type 135 @th,64,128 " + fmt.Sprintf("0x%x", target) + " counter drop"} {
			if !strings.Contains(guard, rule) {
				t.Errorf("no rule %s", rule)
			}
		}
	}
}
