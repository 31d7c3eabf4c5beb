package discover_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// A route reads as ip-route(8) has it.
func TestRouteString(t *testing.T) {
	t.Parallel()
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for want, r := range map[string]discover.Route{
		"default via 169.254.1.1":                     {Destination: p("0.0.0.0/0"), Gateway: a("169.254.1.1"), Table: 254, Type: unix.RTN_UNICAST},
		"10.244.1.0/24 scope link src 10.244.1.7":     {Destination: p("10.244.1.0/24"), Scope: unix.RT_SCOPE_LINK, Source: a("10.244.1.7"), Table: 254},
		"default via inet6 fe80::1 metric 5 mtu 1400": {Destination: p("0.0.0.0/0"), Gateway: a("fe80::1"), Table: 254, Metric: 5, MTU: 1400},
		"blackhole 10.9.0.0/16 table 7":               {Destination: p("10.9.0.0/16"), Table: 7, Type: unix.RTN_BLACKHOLE},
		"10.9.0.0/16 via 10.9.0.1 from 10.244.0.0/16 tos 0x10 onlink": {
			Destination: p("10.9.0.0/16"), Gateway: a("10.9.0.1"), From: p("10.244.0.0/16"), TOS: 0x10, OnLink: true, Table: 254,
		},
		"default nexthops 2": {Destination: p("::/0"), Table: 254, Links: []int{2, 3}},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What is read can be printed for a look: the kernel's messages are but a size.
func TestPrintedInterface(t *testing.T) {
	t.Parallel()
	interfaces, err := discover.ReadInterfaces()
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v", interfaces); strings.Contains(text, "Message:[") || !strings.Contains(text, "bytes of netlink") {
		t.Errorf("printed: %.300s", text)
	}
}
