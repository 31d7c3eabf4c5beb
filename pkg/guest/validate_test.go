package guest

import (
	"encoding/json"
	"flag"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var update = flag.Bool("update", false, "write the golden files")

// dual is a NIC with all that one can have.
func dual(t *testing.T) NIC {
	t.Helper()
	in := pod(t, "fd00::1", "10.9.0.7/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.1 mtu 1400", "fd00::/64", "::/0 fd00::1")
	in.Addresses = append(in.Addresses, discover.Address{Prefix: netip.MustParsePrefix("fd00::7/64"), Flags: 0x80})
	in.Neighbors = []discover.Neighbor{{Address: netip.MustParseAddr("10.9.0.1"), MAC: gateway}}
	in.Omitted = []discover.Omission{{What: "route fd00:9::/64", Why: "it is in another table"}}
	return Same(in, options)
}

// Of the pods that CNIs make, a NIC is this, and the same once it is read again.
func TestGolden(t *testing.T) {
	t.Parallel()
	aws := pod(t, "", "10.0.3.7/32", "0.0.0.0/0 169.254.1.1", "169.254.1.1/32")
	aws.MTU = 9001
	aws.Neighbors = []discover.Neighbor{{Address: netip.MustParseAddr("169.254.1.1"), MAC: gateway}}
	calico := pod(t, "fe80::ecee:eeff:feee:eeee", "192.168.79.5/32", "0.0.0.0/0 169.254.1.1", "169.254.1.1/32", "::/0 fe80::ecee:eeff:feee:eeee")
	calico.Addresses = append(calico.Addresses, discover.Address{Prefix: netip.MustParsePrefix("fd00:79::5/128"), Flags: 0x80})
	for name, n := range map[string]NIC{
		"flannel":     Same(pod(t, "", "10.244.1.7/24", "0.0.0.0/0 10.244.1.1", "10.244.0.0/16 10.244.1.1", "10.244.1.0/24"), options),
		"calico":      Same(calico, options),
		"aws":         Same(aws, options),
		"dual":        dual(t),
		"no-ipam":     Same(pod(t, "", ""), options),
		"no-gateway":  Same(pod(t, "", "10.9.0.7/24", "10.9.0.0/24"), options),
		"cilium-ipv6": Same(pod(t, "fd00::1", "fd00::7/128", "fd00::1/128", "::/0 fd00::1 mtu 1450"), options),
	} {
		text, err := json.MarshalIndent(n, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		podtest.Golden(t, name+".json", string(text)+"\n", *update)
		var again NIC
		if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(n, again) {
			t.Errorf("%s: %+v becomes %+v, %v", name, n, again, err)
		}
		if err := again.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	for want, change := range map[string]func(*NIC){
		"it has an address, but addressed is false":    func(n *NIC) { n.Addressed = false },
		`"" is not an interface name`:                  func(n *NIC) { n.Interface = "" },
		`"a/b" is not an interface name`:               func(n *NIC) { n.Tap = "a/b" },
		"eth0 is used twice":                           func(n *NIC) { n.Tap = "eth0" },
		`the VM's MAC "" is not`:                       func(n *NIC) { n.MAC = mac.Addr{} },
		`the tap's MAC "01:00:00:00:00:00" is not`:     func(n *NIC) { n.TapMAC = mac.Addr{1} },
		"MTU 67 is outside":                            func(n *NIC) { n.MTU, n.IPv6, n.Answers = 67, nil, nil },
		"MTU 65522 is outside":                         func(n *NIC) { n.MTU = 65522 },
		"MTU 1279 is too small for IPv6":               func(n *NIC) { n.MTU = 1279 },
		"0 queues":                                     func(n *NIC) { n.Queues = 0 },
		"257 queues":                                   func(n *NIC) { n.Queues = 257 },
		"answer for 10.9.0.1: the VM has no such":      func(n *NIC) { n.IPv4 = nil },
		"the VM has no such neighbor":                  func(n *NIC) { n.Answers = append(n.Answers, Neighbor{a("fe80::9"), n.TapMAC}); n.IPv6 = nil },
		"answer for 10.9.0.1: it has no MAC":           func(n *NIC) { n.Answers[0].MAC = mac.Addr{} },
		"answer for invalid IP":                        func(n *NIC) { n.Answers[0].Address = netip.Addr{} },
		"IPv4 address invalid Prefix":                  func(n *NIC) { n.IPv4.Address = netip.Prefix{} },
		"IPv4 address 10.9.0.7/0":                      func(n *NIC) { n.IPv4.Address = p("10.9.0.7/0") },
		"IPv4 address 224.0.0.1/24":                    func(n *NIC) { n.IPv4.Addresses = append(n.IPv4.Addresses, p("224.0.0.1/24")) },
		"the first of the IPv4 addresses [] is not":    func(n *NIC) { n.IPv4.Addresses = nil },
		"[10.9.0.8/24] is not 10.9.0.7":                func(n *NIC) { n.IPv4.Addresses[0] = p("10.9.0.8/24") },
		"server identifier invalid IP":                 func(n *NIC) { n.IPv4.Server = netip.Addr{} },
		"server identifier 10.9.0.7 is not another":    func(n *NIC) { n.IPv4.Server = a("10.9.0.7") },
		"IPv4 gateway fd00::1 is not":                  func(n *NIC) { n.IPv4.Gateway = a("fd00::1") },
		"route: invalid Prefix is not an IPv4":         func(n *NIC) { n.IPv4.Routes[0].Destination = netip.Prefix{} },
		"route: 10.9.0.7/24 is not an IPv4":            func(n *NIC) { n.IPv4.Routes[0].Destination = p("10.9.0.7/24") },
		"0.0.0.0 is not an IPv4 gateway":               func(n *NIC) { n.IPv4.Routes[0].Gateway = a("0.0.0.0") },
		"route to 0.0.0.0/0: MTU 1 is less":            func(n *NIC) { n.IPv4.Routes[0].MTU = 1 },
		"IPv6 address fe80::1/64":                      func(n *NIC) { n.IPv6.Address = p("fe80::1/64") },
		"IPv6 address ::ffff:10.9.0.7/100":             func(n *NIC) { n.IPv6.Address = p("::ffff:10.9.0.7/100") },
		"IPv6 router fd00::1 is not a link-local":      func(n *NIC) { n.IPv6.Router.LinkLocal = a("fd00::1") },
		"IPv6 router fe80::1%eth0 is not a link-local": func(n *NIC) { n.IPv6.Router.LinkLocal = a("fe80::1%eth0") },
		`the IPv6 router's MAC "" is not`:              func(n *NIC) { n.IPv6.Router.MAC = mac.Addr{} },
		"IPv6 gateway fd00::7 is not another":          func(n *NIC) { n.IPv6.Router.Gateway = a("fd00::7") },
		"routes by a router, but no router":            func(n *NIC) { n.IPv6.Router = nil },
		"on the link: fe80::/64 is no":                 func(n *NIC) { n.IPv6.Prefixes[0] = p("fe80::/64") },
		"route: 0.0.0.0/0 is not an IPv6":              func(n *NIC) { n.IPv6.Routes[0].Destination = p("0.0.0.0/0") },
		"route to ::/0: it has the gateway fd00::1":    func(n *NIC) { n.IPv6.Routes[0].Gateway = a("fd00::1") },
		"route to ::/0: MTU -1 is less":                func(n *NIC) { n.IPv6.Routes[0].MTU = -1 },
	} {
		n := dual(t)
		change(&n)
		if err := n.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
