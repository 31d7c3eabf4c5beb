package prestart

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// planFor is a plan for an interface with an address and routes, each written
// as "destination [gateway] [mtu N] [metric N] [table N]".
func planFor(t *testing.T, address string, routes ...string) prepare.Plan {
	t.Helper()
	in := discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{2, 0, 0, 0, 0, 7}, MTU: 1500,
		Up: true, ARP: true, Ethernet: true,
	}
	if address != "" {
		in.Addresses = []discover.Address{{Prefix: netip.MustParsePrefix(address)}}
	}
	for _, text := range routes {
		words := strings.Fields(text)
		r := discover.Route{Destination: netip.MustParsePrefix(words[0]), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}
		words = words[1:]
		if len(words)%2 == 1 {
			r.Gateway = netip.MustParseAddr(words[0])
			words = words[1:]
		}
		for ; len(words) > 0; words = words[2:] {
			field := map[string]*int{"mtu": &r.MTU, "metric": &r.Metric, "table": &r.Table}[words[0]]
			if _, err := fmt.Sscan(words[1], field); err != nil {
				t.Fatal(err)
			}
		}
		in.Routes = append(in.Routes, r)
	}
	plan, err := prepare.NewPlan(in, prepare.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestNewLease(t *testing.T) {
	for _, c := range []struct {
		name      string
		plan      prepare.Plan
		secondary bool
		want      string // address, router, server, MTU, routes
	}{
		{
			name: "bridge", plan: planFor(t, "10.244.1.7/24", "0.0.0.0/0 10.244.1.1", "10.244.0.0/16 10.244.1.1", "10.244.1.0/24"),
			want: "10.244.1.7/24 router 10.244.1.1 server 10.244.1.1 mtu 1500 [10.244.0.0/16 via 10.244.1.1] [0.0.0.0/0 via 10.244.1.1]",
		},
		{
			name: "point to point, no connected route", plan: planFor(t, "10.244.0.2/24", "0.0.0.0/0 10.244.0.1", "10.244.0.0/24 10.244.0.1", "10.244.0.1/32"),
			want: "10.244.0.2/32 router 10.244.0.1 server 10.244.0.1 mtu 1500 [10.244.0.1/32] [10.244.0.0/24 via 10.244.0.1] [0.0.0.0/0 via 10.244.0.1]",
		},
		{
			name: "gateway off the subnet", plan: planFor(t, "192.168.79.5/32", "0.0.0.0/0 169.254.1.1", "169.254.1.1/32"),
			want: "192.168.79.5/32 router 169.254.1.1 server 169.254.1.1 mtu 1500 [169.254.1.1/32] [0.0.0.0/0 via 169.254.1.1]",
		},
		{
			name: "gateway that no route covers (onlink)", plan: planFor(t, "10.0.0.5/32", "0.0.0.0/0 10.0.0.1"),
			want: "10.0.0.5/32 router 10.0.0.1 server 10.0.0.1 mtu 1500 [10.0.0.1/32] [0.0.0.0/0 via 10.0.0.1]",
		},
		{
			name: "MTU on the default route", plan: planFor(t, "10.0.1.5/32", "0.0.0.0/0 10.0.1.1 mtu 1450", "10.0.1.1/32"),
			want: "10.0.1.5/32 router 10.0.1.1 server 10.0.1.1 mtu 1450 [10.0.1.1/32] [0.0.0.0/0 via 10.0.1.1]",
		},
		{
			name: "no gateway", plan: planFor(t, "10.9.0.1/24", "10.9.0.0/24"),
			want: "10.9.0.1/24 router none server 169.254.0.1 mtu 1500 [169.254.0.1/32]",
		},
		{
			name: "no gateway, no network", plan: planFor(t, "10.9.0.7/32"),
			want: "10.9.0.7/32 router none server 169.254.0.1 mtu 1500 [169.254.0.1/32]",
		},
		{
			name: "no gateway, a network of which the server's address is", plan: planFor(t, "169.254.0.7/24", "169.254.0.0/24"),
			want: "169.254.0.7/24 router none server 169.254.255.1 mtu 1500 [169.254.255.1/32]",
		},
		{
			name: "no gateway, all of 169.254", plan: planFor(t, "169.254.7.7/16", "169.254.0.0/16"),
			want: "169.254.7.7/16 router none server 169.254.0.1 mtu 1500",
		},
		{
			name: "/31, odd gateway", plan: planFor(t, "10.9.0.8/31", "10.9.0.8/31", "0.0.0.0/0 10.9.0.9"),
			want: "10.9.0.8/32 router 10.9.0.9 server 10.9.0.9 mtu 1500 [10.9.0.9/32] [0.0.0.0/0 via 10.9.0.9]",
		},
		{
			name: "/31, even gateway", plan: planFor(t, "10.9.0.9/31", "10.9.0.8/31", "0.0.0.0/0 10.9.0.8"),
			want: "10.9.0.9/32 router 10.9.0.8 server 10.9.0.8 mtu 1500 [10.9.0.8/32] [0.0.0.0/0 via 10.9.0.8]",
		},
		{
			name: "/31 without a gateway", plan: planFor(t, "10.9.0.8/31", "10.9.0.8/31"),
			want: "10.9.0.8/32 router none server 169.254.0.1 mtu 1500 [10.9.0.9/32] [169.254.0.1/32]",
		},
		{
			name: "/30", plan: planFor(t, "10.9.0.10/30", "10.9.0.8/30", "0.0.0.0/0 10.9.0.9"),
			want: "10.9.0.10/30 router 10.9.0.9 server 10.9.0.9 mtu 1500 [0.0.0.0/0 via 10.9.0.9]",
		},
		{
			name: "the last address of the network", plan: planFor(t, "10.9.0.255/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.1"),
			want: "10.9.0.255/32 router 10.9.0.1 server 10.9.0.1 mtu 1500 [10.9.0.1/32] [10.9.0.0/24] [0.0.0.0/0 via 10.9.0.1]",
		},
		{
			name: "the first address of the network", plan: planFor(t, "10.9.0.0/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.1"),
			want: "10.9.0.0/32 router 10.9.0.1 server 10.9.0.1 mtu 1500 [10.9.0.1/32] [10.9.0.0/24] [0.0.0.0/0 via 10.9.0.1]",
		},
		{
			name: "a gateway with the first address of the network", plan: planFor(t, "10.9.0.7/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.0"),
			want: "10.9.0.7/32 router 10.9.0.0 server 10.9.0.0 mtu 1500 [10.9.0.0/32] [10.9.0.0/24] [0.0.0.0/0 via 10.9.0.0]",
		},
		{
			name: "addresses alone that end with 255 and 0", plan: planFor(t, "10.9.0.255/32", "0.0.0.0/0 10.9.1.0"),
			want: "10.9.0.255/32 router 10.9.1.0 server 10.9.1.0 mtu 1500 [10.9.1.0/32] [0.0.0.0/0 via 10.9.1.0]",
		},
		{
			name: "secondary with no route but the default one", secondary: true, plan: planFor(t, "10.9.0.7/32", "0.0.0.0/0 10.9.0.1"),
			want: "10.9.0.7/32 router none server 10.9.0.1 mtu 1500 [10.9.0.1/32]",
		},
		{
			name: "secondary", secondary: true, plan: planFor(t, "10.9.0.7/24", "0.0.0.0/0 10.9.0.1 mtu 1400", "10.10.0.0/16 10.9.0.1", "10.9.0.0/24"),
			want: "10.9.0.7/24 router none server 10.9.0.1 mtu 1500 [10.10.0.0/16 via 10.9.0.1]",
		},
		{
			name: "the better of two, other tables, narrower first", plan: planFor(t, "10.9.0.7/24",
				"0.0.0.0/0 10.9.0.2 metric 100", "0.0.0.0/0 10.9.0.1 metric 50", "0.0.0.0/0 10.9.0.9 table 100",
				"172.16.0.0/12 10.9.0.1", "172.16.5.0/24 10.9.0.3", "192.0.2.0/24", "10.9.0.0/24"),
			want: "10.9.0.7/24 router 10.9.0.1 server 10.9.0.1 mtu 1500 [192.0.2.0/24] [172.16.5.0/24 via 10.9.0.3] [172.16.0.0/12 via 10.9.0.1] [0.0.0.0/0 via 10.9.0.1]",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			lease, ok := newLease(c.plan, discover.Pod{}, !c.secondary, LeaseSettings{})
			if !ok {
				t.Fatal("no lease")
			}
			if got := leaseText(lease); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if err := lease.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
	if _, ok := newLease(planFor(t, ""), discover.Pod{}, true, LeaseSettings{}); ok {
		t.Error("an interface without an address has a lease")
	}
}

func leaseText(l dhcp.Lease) string {
	router := "none"
	if l.Router.IsValid() {
		router = l.Router.String()
	}
	s := fmt.Sprintf("%s router %s server %s mtu %d", l.Address, router, l.Server, l.MTU)
	for _, r := range l.Routes {
		s += " [" + r.Destination.String()
		if r.Gateway.IsValid() {
			s += " via " + r.Gateway.String()
		}
		s += "]"
	}
	return s
}

func TestLeaseSettings(t *testing.T) {
	pod := discover.Pod{Hostname: "pod", DNS: discover.Resolver{
		Servers: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Search: []string{"cluster.local"},
	}}
	plan := planFor(t, "10.9.0.7/24", "10.9.0.0/24")
	lease, _ := newLease(plan, pod, true, LeaseSettings{})
	if lease.Hostname != "pod" || lease.DNS[0] != pod.DNS.Servers[0] || lease.Search[0] != "cluster.local" || lease.Duration != 0 {
		t.Errorf("the pod's settings are not in %+v", lease)
	}
	own := LeaseSettings{
		Duration: time.Hour, Hostname: "vm", DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Search: []string{"example.org"},
		NTP: []netip.Addr{netip.MustParseAddr("192.0.2.123")}, TFTPServer: "192.0.2.69", BootFiles: netboot.Files{{Name: "boot"}}, Options: []dhcp.Option{{Code: 252}},
	}
	lease, _ = newLease(plan, pod, true, own)
	if lease.Hostname != "vm" || lease.DNS[0] != own.DNS[0] || lease.Search[0] != "example.org" || lease.Duration != time.Hour ||
		lease.NTP[0] != own.NTP[0] || lease.TFTPServer != "192.0.2.69" || lease.BootFiles[0].Name != "boot" || lease.Options[0].Code != 252 {
		t.Errorf("the settings are not in %+v", lease)
	}
}

// TestBootFiles6: DHCPv6 names boot files by URLs.
func TestBootFiles6(t *testing.T) {
	for _, c := range []struct{ server, name, want string }{
		{"fd00::69", "ipxe.efi", "tftp://[fd00::69]/ipxe.efi"},
		{"fd00::69", "/dir/a file", "tftp://[fd00::69]/dir/a%20file"},
		{"fe80::1%eth0", "ipxe.efi", "tftp://[fe80::1]/ipxe.efi"},
		{"boot.example", "ipxe.efi", "tftp://boot.example/ipxe.efi"},
		{"fd00::69", "http://h/ipxe.efi", "http://h/ipxe.efi"},
		{"", "http://h/ipxe.efi", "http://h/ipxe.efi"},
		{"192.0.2.69", "ipxe.efi", "ipxe.efi"}, // which dhcp6 leaves out, and says so
		{"", "ipxe.efi", "ipxe.efi"},
	} {
		given := LeaseSettings{TFTPServer: c.server, BootFiles: netboot.Files{{Firmware: "efi-x64", Name: c.name}}}
		got := given.bootFiles6()
		if got[0] != (netboot.File{Firmware: "efi-x64", Name: c.want}) || given.BootFiles[0].Name != c.name {
			t.Errorf("%s on %q: got %v, given is %v", c.name, c.server, got, given.BootFiles)
		}
	}
}
