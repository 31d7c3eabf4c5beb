package prestart

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// plan6For is planFor with a gateway that has said its MAC; empty: there is none.
func plan6For(t *testing.T, gateway, address string, routes ...string) prepare.Plan {
	t.Helper()
	in := planFor(t, address, routes...).Interface
	if gateway != "" {
		in.Gateway6 = &discover.Neighbor{Address: netip.MustParseAddr(gateway), MAC: mac.Addr{2, 0, 0, 0, 0, 1}}
	}
	plan, err := prepare.NewPlan(in, prepare.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestNewAdvertisement: the guest is told of the ways that the pod has.
func TestNewAdvertisement(t *testing.T) {
	const invented = "fe80::ff:fe00:1"
	nobody := prepare.LinkLocal(plan6For(t, "", "fd00::7/64").Bridge.MAC).String()
	bridge := []string{"fd00::/64 metric 256", "fe80::/64 metric 256", "::/0 fd00::1 metric 1024"}
	for _, c := range []struct {
		name      string
		plan      prepare.Plan
		secondary bool
		want      string // router, its lifetime, MTU, prefixes, routes
	}{
		{
			name: "bridge", plan: plan6For(t, "fd00::1", "fd00::7/64", bridge...),
			want: "router " + invented + " 65535s mtu 1500 on link [fd00::/64] routes [::/0]",
		},
		{
			name: "longer prefix", plan: plan6For(t, "fd00::1", "fd00::7/112", "fd00::/112 metric 256", "::/0 fd00::1 metric 1024"),
			want: "router " + invented + " 65535s mtu 1500 on link [fd00::/112] routes [::/0]",
		},
		{
			name: "secondary", secondary: true, plan: plan6For(t, "fd00::1", "fd00::7/64", append(bridge, "fd10::/32 fd00::1", "::/0 fd00::1 mtu 1400")...),
			want: "router " + invented + " 0s mtu 1500 on link [fd00::/64] routes [fd10::/32]",
		},
		{
			name: "point to point", plan: plan6For(t, "fd00::1", "fd00::7/64", "fd00::1/128", "fd00::/64 fd00::1", "::/0 fd00::1 mtu 1450"),
			want: "router " + invented + " 65535s mtu 1450 on link [] routes [fd00::/64 ::/0]",
		},
		{
			name: "point to point, secondary", secondary: true, plan: plan6For(t, "fd00::1", "fd00::7/64", "fd00::1/128", "fd00::/64 fd00::1"),
			want: "router " + invented + " 0s mtu 1500 on link [fd00::1/128] routes [fd00::/64]",
		},
		{
			name: "gateway link-local", plan: plan6For(t, "fe80::1", "fd00::7/128", "fd00::7/128 metric 256", "::/0 fe80::1 metric 1024"),
			want: "router fe80::1 65535s mtu 1500 on link [] routes [::/0]",
		},
		{
			name: "no default route", plan: plan6For(t, "fd00::1", "fd00::7/64", "fd00::/64", "fd10::/32 fd00::1", "fd20::/32 fd00::2"),
			want: "router " + invented + " 0s mtu 1500 on link [fd00::/64] routes [fd10::/32]",
		},
		{
			name: "more on the link", plan: plan6For(t, "", "fd00::7/64", "fd00::/64 metric 256", "fd00::/64 metric 1024", "fd30::/112 metric 1024", "fd40::9/128 metric 1024"),
			want: "router " + nobody + " 0s mtu 1500 on link [fd00::/64 fd30::/112 fd40::9/128] routes []",
		},
		{
			name: "the better of two, other tables", plan: plan6For(t, "fd00::1", "fd00::7/64",
				"fd00::/64 metric 256", "fd00::/64 fd00::1 metric 100", "::/0 fd00::1 metric 50", "::/0 fd00::2 mtu 1300 metric 60", "fd50::/64 table 100"),
			want: "router " + invented + " 65535s mtu 1500 on link [] routes [fd00::/64 ::/0]",
		},
		{
			name: "gateway does not answer", plan: plan6For(t, "", "fd00::7/64", bridge...),
			want: "router " + nobody + " 0s mtu 1500 on link [fd00::/64] routes []",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, ok := newAdvertisement(c.plan, discover.Pod{}, !c.secondary, LeaseSettings{})
			if !ok {
				t.Fatal("no advertisement")
			}
			if got := advertisementText(a); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if _, left := a.Normalize(); a.Validate() != nil || len(left) != 0 {
				t.Errorf("left out %q, %v", left, a.Validate())
			}
		})
	}
	blackhole := plan6For(t, "fd00::1", "fd00::7/64", append(bridge, "fd60::/32")...)
	blackhole.Interface.Routes[3].Type = unix.RTN_BLACKHOLE
	if a, _ := newAdvertisement(blackhole, discover.Pod{}, true, LeaseSettings{}); len(a.Prefixes) != 1 {
		t.Errorf("a route to nowhere is told: %+v", a.Prefixes)
	}
	if _, ok := newAdvertisement(planFor(t, "10.9.0.7/24"), discover.Pod{}, true, LeaseSettings{}); ok {
		t.Error("an interface without IPv6 has an advertisement")
	}
}

func advertisementText(a ra.Advertisement) string {
	var onLink []string
	for _, p := range a.Prefixes {
		if !p.Autonomous && p.OnLink {
			onLink = append(onLink, p.Prefix.String())
		}
	}
	return fmt.Sprintf("router %s %.0fs mtu %d on link %v routes %v", a.Router, a.RouterLifetime.Seconds(), a.MTU, onLink, a.Routes)
}
