package redirect

import (
	"encoding/json"
	"flag"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

var update = flag.Bool("update", false, "write the golden files")

// eth0 is a pod interface as CNIs leave it.
func eth0() discover.Interface {
	return discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 0x01, 0x07}, MTU: 1450,
		Up: true, ARP: true, Ethernet: true,
		Addresses: []discover.Address{{Prefix: netip.MustParsePrefix("10.244.1.7/24")}, {Prefix: netip.MustParsePrefix("fd00:244:1::7/64")}},
		Routes: []discover.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.244.1.1"), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST},
			{Destination: netip.MustParsePrefix("10.244.1.0/24"), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK},
		},
	}
}

func ports(text string) (p guest.Ports) {
	if err := p.UnmarshalText([]byte(text)); err != nil {
		return guest.Ports{}
	}
	return p
}

func TestPlanGolden(t *testing.T) {
	for name, o := range map[string]engine.Options{
		"default":   {},
		"pod-ports": {PodPorts: ports("8080,9000-9010/tcp,53/udp"), NoIPv6: true, VMAlias: netip.MustParseAddr("169.254.100.2")},
		"vm-ports":  {VMPorts: ports("22/tcp"), NoGuard: true, NoIPv6: true},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := Datapath{}.Wire(eth0(), o)
			if err != nil {
				t.Fatal(err)
			}
			st, err := w.Apply(engine.Original(eth0()))
			if err != nil {
				t.Fatal(err)
			}
			podtest.Golden(t, name+".golden", engine.Sequence(st.Ops()).String()+"\n", *update)
		})
	}
}

// What can't be shared is refused with the way out; what a bridge can't have is not.
func TestUsable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*discover.Interface)
		want   string // empty: it can
	}{
		"veth":            {func(*discover.Interface) {}, ""},
		"macvlan":         {func(in *discover.Interface) { in.Kind = "macvlan" }, ""},
		"ipvlan":          {func(in *discover.Interface) { in.Kind = "ipvlan" }, ""},
		"physical":        {func(in *discover.Interface) { in.Kind = "physical" }, ""},
		"a macvlan on it": {func(in *discover.Interface) { in.TakenBy = "macvlan mv0" }, ""},
		"shared routes":   {func(in *discover.Interface) { in.Shared = make([]discover.SharedRoute, 1) }, ""},
		"loopback":        {func(in *discover.Interface) { in.Name = "lo" }, "name the pod's interface"},
		"placeholder":     {func(in *discover.Interface) { in.Kind = "bridge" }, "name the state directory that was used then"},
		"netkit L3":       {func(in *discover.Interface) { in.Kind, in.Ethernet, in.MAC = "netkit", false, mac.Addr{} }, "netkit's L2 mode"},
		"no MAC":          {func(in *discover.Interface) { in.MAC = mac.Addr{} }, "without a MAC address"},
		"point-to-point":  {func(in *discover.Interface) { in.PointToPoint = true }, "point-to-point"},
		"ipvlan L3":       {func(in *discover.Interface) { in.Kind, in.ARP = "ipvlan", false }, "ipvlan's mode l2"},
		"no ARP":          {func(in *discover.Interface) { in.ARP = false }, "does not resolve neighbors"},
		"member of a VRF": {func(in *discover.Interface) { in.Master = "red" }, "belongs to red"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := eth0()
			c.change(&in)
			_, err := Datapath{}.Wire(in, engine.Options{})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// Options that don't go with the interface are refused.
func TestOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		o    engine.Options
		want string
	}{
		{engine.Options{MAC: eth0().MAC}, ""},
		{engine.Options{MAC: mac.Addr{2, 0, 0, 0, 0, 9}}, "leave its MAC out, or use the default datapath"},
		{engine.Options{MTU: 1500}, "MTU 1500 is more than eth0 carries"},
		{engine.Options{VMAlias: netip.MustParseAddr("169.254.100.2"), VMAlias6: netip.MustParseAddr("fd00:a::1")}, ""},
		{engine.Options{VMAlias: netip.MustParseAddr("169.254.100.4")}, "of its /30"},
		{engine.Options{VMAlias6: netip.MustParseAddr("fd00:a::3")}, "of its /126"},
		{engine.Options{VMAlias: netip.MustParseAddr("10.244.1.9")}, "is in a network of the pod's"},
		{engine.Options{VMAlias: netip.MustParseAddr("10.244.1.8")}, "is in a network of the pod's"},
		{engine.Options{Names: map[string]string{engine.TapRole: "eth0"}}, "used twice"},
	} {
		_, err := Datapath{}.Wire(eth0(), c.o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

// Aliases are the same each time, others on another interface, and never where the pod
// has something.
func TestAliases(t *testing.T) {
	t.Parallel()
	seen := map[netip.Addr]int{}
	for index := range 2000 {
		in := eth0()
		in.Index = index + 1
		aliases, err := aliasesFor(in, engine.Options{})
		if err != nil || len(aliases) != 2 {
			t.Fatal(aliases, err)
		}
		for _, a := range aliases {
			for _, x := range []netip.Addr{a.VM, a.Pod} {
				if other := seen[x]; other != 0 {
					t.Fatalf("interfaces %d and %d both have %s", other, in.Index, x)
				}
				seen[x] = in.Index
			}
		}
		if four := aliases[0]; !aliases4[0].Contains(four.VM) || !aliases4[0].Contains(four.Pod) || paired(four.Pod) != four.VM {
			t.Fatalf("%+v", four)
		}
	}
	in := eth0()
	first, _ := aliasesFor(in, engine.Options{})
	in.Routes = append(in.Routes, discover.Route{Destination: netip.PrefixFrom(first[0].Pod, 28).Masked()})
	in.Neighbors = []discover.Neighbor{{Address: first[1].VM}}
	second, err := aliasesFor(in, engine.Options{})
	if err != nil || second[0] == first[0] || second[1] == first[1] || in.Routes[2].Destination.Contains(second[0].VM) {
		t.Errorf("%v, then %v, %v", first, second, err)
	}
}

// planOf is what the tables are made of.
func planOf(w engine.Wiring) string {
	return engine.Sequence(engine.TableOps(&engine.State{}, "", w.Tables()...)).String()
}

// A record that was written by somebody else is refused, whatever is wrong in it.
func TestDecode(t *testing.T) {
	t.Parallel()
	w, err := Datapath{}.Wire(eth0(), engine.Options{PodPorts: ports("80")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Datapath{}.Decode(eth0(), 2, text)
	if err != nil || !again.Options().PodPorts.Equal(ports("80")) || planOf(again) != planOf(w) {
		t.Fatalf("%v, %v", again, err)
	}
	for _, c := range []struct{ old, new string }{
		{`"interface":"eth0"`, `"interface":"eth1"`},
		{`"mac":"0a:58:0a:f4:01:07"`, `"mac":"0a:58:0a:f4:01:08"`},
		{`"podPorts":"80"`, `"podPorts":"80","vmPorts":"22"`},
		{`"podPorts":"80"`, `"podPorts":"0"`},
		{`"vm":"169.254.192.10"`, `"vm":"10.244.1.7"`},
		{`"pod":"169.254.192.9"`, `"pod":"10.244.1.7"`},
		{`"pod":"169.254.192.9"`, `"pod":"fd00::1"`},
		{`"pod":"169.254.192.9"`, `"pod":"127.0.0.1"`},
		{`"pod":"169.254.192.9"`, `"pod":"169.254.192.13"`},
		{`"mtu":1450`, `"mtu":9000`},
		{`"tap":"tap-eth0"`, `"tap":"x; reboot"`},
	} {
		forged := strings.ReplaceAll(string(text), c.old, c.new)
		if forged == string(text) {
			t.Errorf("no %s in %s", c.old, text)
		}
		if _, err := (Datapath{}).Decode(eth0(), 2, json.RawMessage(forged)); err == nil {
			t.Errorf("%s is taken", c.new)
		}
	}
}

// The tap tells of a pod that is shared, if it has the MAC that goes with the pod's.
func TestTraces(t *testing.T) {
	t.Parallel()
	s := engine.Original(eth0())
	tap := nl.Link{Name: "tap-eth0", Index: 3, Tun: &nl.Tun{Tap: true}, MAC: engine.DerivedMAC(eth0(), engine.TapRole)}
	if got := (Datapath{}).Traces(s, "eth0"); len(got) > 0 {
		t.Errorf("a pod as the CNI left it has %q", got)
	}
	s.Links = append(s.Links, tap)
	if got := (Datapath{}).Traces(s, "eth0"); len(got) != 2 {
		t.Errorf("a prepared pod has %q", got)
	}
	s.Links[1].MAC = mac.Addr{2, 0, 0, 0, 0, 1}
	if got := (Datapath{}).Traces(s, "eth0"); len(got) > 0 {
		t.Errorf("a pod with somebody's tap has %q", got)
	}
}
