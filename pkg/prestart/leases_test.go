package prestart

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

var eth0Default = defaultRoutes{"eth0", "eth0"}

// nicWith is a NIC of both families, or without IPv4 and IPv6, with these changes.
func nicWith(changes ...func(*guest.NIC)) guest.NIC {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	n := guest.NIC{
		Interface: "eth0", Tap: "tap-eth0", TapMAC: mac.Addr{2, 0, 0, 0, 0, 0x99}, MAC: mac.Addr{2, 0, 0, 0, 0, 7}, MTU: 1500, Queues: 1, Guard: true, Addressed: true,
		IPv4: &guest.IPv4{
			Address: p("10.9.0.7/24"), Addresses: []netip.Prefix{p("10.9.0.7/24")}, Server: a("10.9.0.1"), Gateway: a("10.9.0.1"), HasDefault: true,
			Routes: []guest.Route{{Destination: p("192.0.2.0/24")}, {Destination: p("172.16.0.0/12"), Gateway: a("10.9.0.1")}, {Destination: p("0.0.0.0/0"), Gateway: a("10.9.0.1")}},
		},
		IPv6: &guest.IPv6{
			Address: p("fd00::7/64"), Router: &guest.Router{LinkLocal: a("fe80::ff:fe00:1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}, Gateway: a("fd00::1")}, HasDefault: true,
			Prefixes: []netip.Prefix{p("fd00::/64"), p("fd00::1/128")}, Routes: []guest.Route{{Destination: p("fd10::/32")}, {Destination: p("::/0")}},
		},
		Answers: []guest.Neighbor{{Address: a("fe80::ff:fe00:1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}}},
	}
	for _, change := range changes {
		change(&n)
	}
	return n
}

// Who has the default route is told of it, and of its MTU; who has not, not.
func TestLeases(t *testing.T) {
	plain := func(*guest.NIC) {}
	for _, c := range []struct {
		name     string
		change   func(*guest.NIC)
		defaults defaultRoutes
		want     string // of DHCPv4, of router advertisements
		omitted  string
	}{
		{
			"default routes", plain, eth0Default,
			"10.9.0.7/24 router 10.9.0.1 server 10.9.0.1 mtu 1500 [192.0.2.0/24] [172.16.0.0/12 via 10.9.0.1] [0.0.0.0/0 via 10.9.0.1]; " +
				"router fe80::ff:fe00:1 65535s mtu 1500 on link [fd00::/64] routes [fd10::/32 ::/0]", "[]",
		},
		{
			"another has them", plain,
			defaultRoutes{"net1", ""},
			"10.9.0.7/24 router none server 10.9.0.1 mtu 1500 [192.0.2.0/24] [172.16.0.0/12 via 10.9.0.1]; " +
				"router fe80::ff:fe00:1 0s mtu 1500 on link [fd00::/64 fd00::1/128] routes [fd10::/32]",
			"[route default via 10.9.0.1: the VM has the default route of IPv4 by net1 route default via fd00::1: no NIC of the VM is to have the default route of IPv6]",
		},
		{
			"MTUs", func(n *guest.NIC) {
				n.IPv4.Routes[1].MTU, n.IPv4.Routes[2].MTU, n.IPv6.Routes[1].MTU = 1300, 1450, 1400
			}, eth0Default,
			"10.9.0.7/24 router 10.9.0.1 server 10.9.0.1 mtu 1450 [192.0.2.0/24] [172.16.0.0/12 via 10.9.0.1] [0.0.0.0/0 via 10.9.0.1]; " +
				"router fe80::ff:fe00:1 65535s mtu 1400 on link [fd00::/64] routes [fd10::/32 ::/0]", "[]",
		},
		{
			"MTUs of a default route that another has", func(n *guest.NIC) { n.IPv4.Routes[2].MTU, n.IPv6.Routes[1].MTU = 1450, 1400 },
			defaultRoutes{"net1", "net1"},
			"10.9.0.7/24 router none server 10.9.0.1 mtu 1500 [192.0.2.0/24] [172.16.0.0/12 via 10.9.0.1]; " +
				"router fe80::ff:fe00:1 0s mtu 1500 on link [fd00::/64 fd00::1/128] routes [fd10::/32]",
			"[route default via 10.9.0.1: the VM has the default route of IPv4 by net1 route default via fd00::1: the VM has the default route of IPv6 by net1]",
		},
		{
			"an MTU larger than the NIC's", func(n *guest.NIC) { n.IPv4.Routes[2].MTU, n.IPv6 = 9000, nil }, eth0Default,
			"10.9.0.7/24 router 10.9.0.1 server 10.9.0.1 mtu 1500 [192.0.2.0/24] [172.16.0.0/12 via 10.9.0.1] [0.0.0.0/0 via 10.9.0.1]; none", "[]",
		},
		{
			"IPv6 alone, without a router", func(n *guest.NIC) { n.IPv4, n.IPv6.Router, n.IPv6.Routes = nil, nil, nil }, eth0Default,
			"none; router fe80::ff:fe00:99 0s mtu 1500 on link [fd00::/64 fd00::1/128] routes []", "[]",
		},
		{
			"what is omitted anyway, and what can't be sent", func(n *guest.NIC) {
				n.IPv6 = nil
				n.Omitted = []discover.Omission{{What: "a", Why: "b"}}
				n.IPv4.Routes = append(n.IPv4.Routes, n.IPv4.Routes[0])
			}, eth0Default,
			"10.9.0.7/24 router 10.9.0.1 server 10.9.0.1 mtu 1500 [192.0.2.0/24] [172.16.0.0/12 via 10.9.0.1] [0.0.0.0/0 via 10.9.0.1]; none",
			"[a: b route 192.0.2.0/24: it is listed twice]",
		},
	} {
		l := LeaseSettings{}.leases(nicWith(c.change), discover.Pod{}, c.defaults)
		got, got6 := "none", "none"
		if l.ipv4 != nil {
			got = leaseText(*l.ipv4)
		}
		if (l.ipv6 == nil) != (l.advertisement == nil) {
			t.Errorf("%s: a lease or an advertisement alone", c.name)
		}
		if l.ipv6 != nil {
			got6 = advertisementText(*l.advertisement)
			if l.ipv6.Server != l.advertisement.Router || l.ipv6.Address.String() != "fd00::7" {
				t.Errorf("%s: the DHCPv6 lease is %+v", c.name, l.ipv6)
			}
		}
		if got += "; " + got6; got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
		if got := fmt.Sprint(l.omitted); got != c.omitted {
			t.Errorf("%s: left out %s\nwant %s", c.name, got, c.omitted)
		}
		if err := l.check(); err != nil {
			t.Error(err)
		}
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

func advertisementText(a ra.Advertisement) string {
	return fmt.Sprintf("router %s %.0fs mtu %d on link %v routes %v", a.Router, a.RouterLifetime.Seconds(), a.MTU, a.Prefixes, a.Routes)
}

// The VM is told of the pod's settings, or of those that are given; of servers by
// the protocol of their family.
func TestLeaseSettings(t *testing.T) {
	a := netip.MustParseAddr
	pod := discover.Pod{Hostname: "pod", DNS: discover.Resolver{Servers: []netip.Addr{a("10.96.0.10"), a("fd00::10")}, Search: []string{"cluster.local"}}}
	l := LeaseSettings{}.leases(nicWith(), pod, eth0Default)
	if v4 := l.ipv4; v4.Hostname != "pod" || !slices.Equal(v4.DNS, pod.DNS.Servers[:1]) || v4.Search[0] != "cluster.local" || v4.Duration != 0 {
		t.Errorf("the pod's settings are not in %+v", v4)
	}
	if v6 := l.ipv6; v6.Hostname != "pod" || !slices.Equal(v6.DNS, pod.DNS.Servers[1:]) || v6.Search[0] != "cluster.local" || v6.Valid != 0 {
		t.Errorf("the pod's settings are not in %+v", v6)
	}
	if r := l.advertisement; !slices.Equal(r.DNS, pod.DNS.Servers[1:]) || r.Search[0] != "cluster.local" || !r.Managed || !r.Other {
		t.Errorf("the pod's settings are not in %+v", r)
	}
	own := LeaseSettings{
		Duration: time.Hour, Hostname: "vm", DNS: []netip.Addr{a("192.0.2.53"), a("fd00::53")}, Search: []string{"example.org"},
		NTP: []netip.Addr{a("192.0.2.123"), a("fd00::123")}, TFTPServer: "192.0.2.69", BootFiles: netboot.Files{{Name: "http://h/boot"}},
		Options: []dhcp.Option{{Code: 252}},
	}
	l = own.leases(nicWith(), pod, eth0Default)
	if v4 := l.ipv4; v4.Hostname != "vm" || !slices.Equal(v4.DNS, own.DNS[:1]) || v4.Search[0] != "example.org" || v4.Duration != time.Hour ||
		!slices.Equal(v4.NTP, own.NTP[:1]) || v4.TFTPServer != "192.0.2.69" || v4.BootFiles[0].Name != "http://h/boot" || v4.Options[0].Code != 252 {
		t.Errorf("the settings are not in %+v", v4)
	}
	if v6 := l.ipv6; v6.Hostname != "vm" || !slices.Equal(v6.DNS, own.DNS[1:]) || !slices.Equal(v6.NTP, own.NTP[1:]) || v6.Valid != time.Hour || len(v6.BootFiles) != 1 {
		t.Errorf("the settings are not in %+v", v6)
	}
	if len(l.omitted) != 0 {
		t.Errorf("left out: %v", l.omitted)
	}
	// A protocol that is alone is told of all, and leaves out what it can't say.
	l = own.leases(nicWith(func(n *guest.NIC) { n.IPv6 = nil }), pod, eth0Default)
	if got := fmt.Sprint(l.omitted); got != "[DNS server fd00::53: it is not an IPv4 address NTP server fd00::123: it is not an IPv4 address]" {
		t.Errorf("left out: %s", got)
	}
	// What several leave out is said once.
	l = LeaseSettings{Search: []string{"a..b"}}.leases(nicWith(), pod, eth0Default)
	if len(l.omitted) != 1 {
		t.Errorf("left out: %v", l.omitted)
	}
}

// One NIC has the default route, for each family the first that has one.
func TestHasDefaultRoute(t *testing.T) {
	first := nicWith(func(n *guest.NIC) { n.IPv6 = nil })
	second := nicWith(func(n *guest.NIC) { n.Interface = "net1" })
	neither := nicWith(func(n *guest.NIC) { n.Interface, n.IPv4.HasDefault, n.IPv6.HasDefault = "net2", false, false })
	for _, c := range []struct {
		named string
		nics  []guest.NIC
		want  defaultRoutes
		fails bool
	}{
		{"", []guest.NIC{first, second}, defaultRoutes{"eth0", "net1"}, false},
		{"", []guest.NIC{neither, second, first}, defaultRoutes{"net1", "net1"}, false},
		{"eth0", []guest.NIC{second, first}, defaultRoutes{"eth0", ""}, false},
		{"net2", []guest.NIC{first, neither}, defaultRoutes{}, false},
		{NoDefaultRoute, []guest.NIC{first, second}, defaultRoutes{}, false},
		{"net7", []guest.NIC{first, second}, defaultRoutes{}, true},
		{"net7", nil, defaultRoutes{}, false},
	} {
		got, err := LeaseSettings{DefaultRoute: c.named}.hasDefaultRoute(c.nics)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%q: %+v, %v, want %+v", c.named, got, err, c.want)
		}
	}
}

// What is taken for a NIC is served: whatever is in the file, nothing panics, and the
// servers refuse none of it.
func FuzzNIC(f *testing.F) {
	text, err := json.Marshal(nicWith())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	// Each value of a whole NIC, in turn, is something else.
	for _, bad := range []string{`""`, "null", "-1", "[]", "{}", `"fe80::1%a"`, `"0.0.0.0/0"`, `"10.9.0.7"`, "999999999999"} {
		for _, at := range regexp.MustCompile(`:("[^"]*"|[0-9.-]+|true|false|null)`).FindAllSubmatchIndex(text, -1) {
			f.Add(slices.Concat(text[:at[2]], []byte(bad), text[at[3]:]))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var n guest.NIC
		if json.Unmarshal(b, &n) != nil || n.Validate() != nil {
			return
		}
		for _, d := range []defaultRoutes{eth0Default, {}} {
			if err := (LeaseSettings{}).leases(n, discover.Pod{Hostname: "vm"}, d).check(); err != nil {
				t.Errorf("%v of %s", err, b)
			}
		}
		_ = n.Addresses()
		again, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var m guest.NIC
		if err := json.Unmarshal(again, &m); err != nil || m.Validate() != nil {
			t.Errorf("%s becomes %s: %v, %v", b, again, err, m.Validate())
		}
	})
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
