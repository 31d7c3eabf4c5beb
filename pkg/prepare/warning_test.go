package prepare

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

func TestWarnings(t *testing.T) {
	address := func(text string, flags uint32) discover.Address {
		return discover.Address{Prefix: netip.MustParsePrefix(text), Flags: flags}
	}
	lasting, ending := address("10.0.0.7/24", unix.IFA_F_PERMANENT), address("10.0.0.8/24", 0)
	for name, c := range map[string]struct {
		in   discover.Interface
		want []string
	}{
		"veth":        {discover.Interface{Name: "eth0", Kind: "veth", Addresses: []discover.Address{lasting}}, nil},
		"hardware":    {discover.Interface{Name: "eth0", Kind: "physical", Addresses: []discover.Address{lasting}}, []string{"eth0 looks like a device of the node"}},
		"host-device": {discover.Interface{Name: "net1", Kind: "veth", Alias: "ens5"}, []string{"net1 looks like a device of the node"}},
		"lease":       {discover.Interface{Name: "net1", Kind: "veth", Addresses: []discover.Address{lasting, ending}}, []string{"the address 10.0.0.8/24 on net1 expires"}},
		"router's":    {discover.Interface{Name: "net1", Kind: "veth", Addresses: []discover.Address{address("2001:db8::7/64", 0)}}, nil},
	} {
		got := planFor(c.in, 328).Warnings(false)
		for i, w := range got {
			if i >= len(c.want) || !strings.HasPrefix(w, c.want[i]) {
				t.Errorf("%s: warned of %q", name, w)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %d warnings, want %d", name, len(got), len(c.want))
		}
	}
	if got := planFor(discover.Interface{Name: "eth0", Kind: "physical"}, 1500).Warnings(true); len(got) > 0 {
		t.Errorf("though it is put back: %q", got)
	}
	small := planFor(discover.Interface{Name: "eth0", Kind: "veth", Addresses: []discover.Address{lasting}}, 327)
	if got := small.Warnings(false); len(got) != 1 || !strings.HasPrefix(got[0], "the MTU of eth0, 327, is too small for DHCP replies") {
		t.Errorf("warned of %q", got)
	}
}

// planFor is a plan that is not quite possible.
func planFor(in discover.Interface, mtu int) Plan {
	in.MAC, in.MTU, in.Ethernet, in.ARP = mac.Addr{2}, 1500, true, true
	w, _ := datapaths[DefaultDatapath].Wire(in, Options{MTU: mtu})
	return Plan{DefaultDatapath, in, w}
}
