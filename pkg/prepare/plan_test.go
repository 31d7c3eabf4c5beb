package prepare

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// What no NIC can have is refused when it is planned, before anything is touched.
func TestPlanRefusesMTU(t *testing.T) {
	t.Parallel()
	pod := discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}, MTU: 1500, Up: true, ARP: true, Ethernet: true,
		Addresses: []discover.Address{{Prefix: netip.MustParsePrefix("fd00::7/64")}},
	}
	for _, datapath := range bothDatapaths {
		if _, err := NewPlan(pod, Options{Datapath: datapath, MTU: 1279}); err == nil || !strings.Contains(err.Error(), "MTU 1279 is too small for IPv6") {
			t.Errorf("%s: got %v", datapath, err)
		}
		for _, o := range []Options{{MTU: 1280}, {MTU: 400, NoIPv6: true}} {
			o.Datapath = datapath
			if _, err := NewPlan(pod, o); err != nil {
				t.Errorf("%s: MTU %d: %v", datapath, o.MTU, err)
			}
		}
	}
}

// A plan is final, whatever becomes of the options that it was made of, and of what it told.
func TestPlanIsFinal(t *testing.T) {
	t.Parallel()
	ports, err := guest.ParsePorts("80,90")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Datapath: "redirect", PodPorts: ports, TapOwner: &Owner{UID: 107, GID: 108}, Names: map[string]string{TapRole: "vm"}}
	plan, err := NewPlan(discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}, MTU: 1500, Up: true, ARP: true, Ethernet: true,
		Addresses: []discover.Address{{Prefix: netip.MustParsePrefix("10.244.1.7/24")}, {Prefix: netip.MustParsePrefix("fd00::7/64")}},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	want := plan.String()
	ports.TCP[0].First, o.TapOwner.UID, o.Names[TapRole] = 70, 0, "x"
	told, _ := plan.Ports()
	told.UDP[0].First = 60
	n := plan.NIC()
	n.IPv4.Address, n.IPv6.Address, n.Aliases[0] = netip.Prefix{}, netip.Prefix{}, guest.Alias{}
	plan.Links()[0].Name = "x"
	if got := plan.String(); got != want {
		t.Errorf("the plan was\n%s\nand is\n%s", want, got)
	}
}
