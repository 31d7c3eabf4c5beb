package main

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A listener that nobody outside of the pod can reach, since the VM has its port, is told.
func TestListenAtTheVMsPort(t *testing.T) {
	t.Parallel()
	ports := func(text string) guest.Ports {
		p, err := guest.ParsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tcp := func(at string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at)) }
	for name, c := range map[string]struct {
		at        net.Addr
		pods, vms string
		told      []string
	}{
		"all ports are the VM's": {at: tcp("[::]:8080"), told: []string{"10.244.1.7:8080", "[fd00::7]:8080"}},
		"one address":            {at: tcp("[::ffff:10.244.1.7]:8080"), told: []string{"10.244.1.7:8080"}},
		"another's address":      {at: tcp("10.9.0.1:8080")},
		"loopback":               {at: tcp("127.0.0.1:8080")},
		"the pod keeps it":       {at: tcp("0.0.0.0:8080"), pods: "8000-8080"},
		"the pod keeps UDP's":    {at: tcp("10.244.1.7:8080"), pods: "8080/udp", told: []string{"10.244.1.7:8080"}},
		"the VM has others":      {at: tcp("0.0.0.0:8080"), vms: "22"},
		"the VM has it":          {at: tcp("10.244.1.7:22"), vms: "22", told: []string{"10.244.1.7:22"}},
		"a socket":               {at: &net.UnixAddr{Name: "/run/s", Net: "unix"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log podtest.Buffer
			warnOfVMs(slog.New(slog.NewTextHandler(&log, nil)), c.at, []prestart.Interface{{
				NIC: guest.NIC{Interface: "eth0"}, PodPorts: ports(c.pods), VMPorts: ports(c.vms),
				Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.1.7/24"), netip.MustParsePrefix("fd00::7/64")},
			}})
			if lines := strings.Count(log.String(), "\n"); lines != len(c.told) {
				t.Errorf("%d lines, want %d", lines, len(c.told))
			}
			for _, want := range c.told {
				if !strings.Contains(log.String(), "address="+want+" ") {
					t.Errorf("nothing tells of %s:\n%s", want, log.String())
				}
			}
		})
	}
}
