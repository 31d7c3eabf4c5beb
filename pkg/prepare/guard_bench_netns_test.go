package prepare_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// guarded is a prepared pod, with the guard or without.
type guarded struct {
	*podtest.Pod
	name string
	plan prepare.Plan
	tap  *podtest.Tap // nil: somebody else's
}

// newGuarded returns a pod with the guard, one without, and one with the guard but
// for its checksum filter. Nobody sits on the taps yet.
func newGuarded(b *testing.B) []*guarded {
	b.Helper()
	var pods []*guarded
	for _, g := range []*guarded{{name: "guard"}, {name: "noguard"}, {name: "nofilter"}} {
		g.Pod = podtest.NewPod(b, podtest.Flannel)
		if err := g.Do(func() (err error) {
			g.plan, err = prepare.ApplyOne(b.Context(), b.TempDir(), prepare.Options{NoGuard: g.name == "noguard"}, g.Interface)
			return err
		}); err != nil {
			b.Fatal(err)
		}
		if g.name == "nofilter" {
			if out, err := g.Output(b.Context(), "tc", "qdisc", "del", "dev", g.plan.NIC().Tap, "clsact"); err != nil {
				b.Fatal(err, out)
			}
		}
		pods = append(pods, g)
	}
	return pods
}

// sit opens the guest's tap, from which the node is known and knows the guest.
func (g *guarded) sit(b *testing.B) {
	b.Helper()
	var err error
	if g.tap, err = podtest.OpenTap(g.NS, g.plan.NIC().Tap, 1); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = g.tap.Close() })
	if err := g.Do(func() error { return g.plan.WaitForwarding(b.Context()) }); err != nil {
		b.Fatal(err)
	}
	if out, err := g.Node.Output(b.Context(), "ip", "neigh", "replace", g.IPv4.Addr().String(), "lladdr", g.MAC.String(), "dev", "cni0"); err != nil {
		b.Fatal(err, out)
	}
}

// udpChecksum is what a guest asks for with a datagram.
var udpChecksum = podtest.Request{Checksum: true, Start: podtest.EthernetLen + podtest.IPv4Len, Offset: 6}

// BenchmarkGuardPackets has a guest send frames into its tap as fast as they are
// taken: tap, switch, pod's link, node, which throws them away: nobody has the port. There is no
// vhost: the guest is this process, so the system call is in the numbers. With
// the guard and without take turns.
func BenchmarkGuardPackets(b *testing.B) {
	for _, size := range []int{64, 1464} {
		b.Run(fmt.Sprintf("%d", size), func(b *testing.B) {
			pods := newGuarded(b)
			frames := map[string][]byte{}
			for _, g := range pods {
				g.sit(b)
				payload := make([]byte, size-podtest.EthernetLen-podtest.IPv4Len-podtest.UDPLen)
				gateway, err := linkAddress(g.Node, "cni0")
				if err != nil {
					b.Fatal(err)
				}
				frames[g.name] = podtest.UDPFrame(g.MAC, gateway,
					netip.AddrPortFrom(g.IPv4.Addr(), 9), netip.AddrPortFrom(g.Gateway, 9), payload)
			}
			const burst = 64
			alternate(b, pods, burst, "packets/s", func(g *guarded) error {
				for range burst {
					if err := g.tap.Ask(udpChecksum, frames[g.name]); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// BenchmarkGuardRoundTrip is a ping from the guest to the node and back.
func BenchmarkGuardRoundTrip(b *testing.B) {
	pods := newGuarded(b)
	echo := map[string][]byte{}
	for _, g := range pods {
		g.sit(b)
		gateway, err := linkAddress(g.Node, "cni0")
		if err != nil {
			b.Fatal(err)
		}
		echo[g.name] = podtest.EchoFrame(g.MAC, gateway, g.IPv4.Addr(), g.Gateway)
	}
	buf := make([]byte, 1<<16)
	alternate(b, pods, 1, "", func(g *guarded) error {
		if _, err := g.tap.Write(echo[g.name]); err != nil {
			return err
		}
		for {
			n, err := g.tap.Read(buf)
			// An ICMP message of type 0 is the reply (RFC 792).
			if err != nil || n > 34 && buf[12] == 8 && buf[13] == 0 && buf[23] == 1 && buf[34] == 0 {
				return err
			}
		}
	})
}

// BenchmarkGuardTCP transfers in both directions between the guest, a namespace
// with the offloads of a virtio device, and the node.
func BenchmarkGuardTCP(b *testing.B) {
	pods := newGuarded(b)
	guests := map[string]*podtest.Guest{}
	for _, g := range pods {
		guest := podtest.NewGuest(b, g.NS, g.plan.NIC().Tap, g.MAC)
		guest.IP(b, "addr add "+g.IPv4.String()+" dev eth0", "route add default via "+g.Gateway.String())
		guests[g.name] = guest
	}
	const size = 2 << 20
	alternate(b, pods, 2*size/1e6, "MB/s", func(g *guarded) error {
		return podtest.Exchange(b.Context(), guests[g.name].NS, g.Node, g.Gateway, size)
	})
}

// alternate does one of each in turn and reports, for each, the median time and,
// if amount has a unit, how much of it that makes a second.
func alternate(b *testing.B, pods []*guarded, amount float64, unit string, do func(*guarded) error) {
	b.Helper()
	took := map[string][]time.Duration{}
	for turn := 0; b.Loop(); turn++ {
		for i := range pods {
			g := pods[(turn+i)%len(pods)]
			start := time.Now()
			if err := do(g); err != nil {
				b.Fatalf("%s: %v", g.name, err)
			}
			took[g.name] = append(took[g.name], time.Since(start))
		}
	}
	p50 := map[string]float64{}
	for _, g := range pods {
		slices.Sort(took[g.name])
		p50[g.name] = took[g.name][len(took[g.name])/2].Seconds()
		if unit != "" {
			b.ReportMetric(amount/p50[g.name], g.name+"-"+unit)
			continue
		}
		b.ReportMetric(p50[g.name]*1e6, g.name+"-µs-p50")
	}
	b.ReportMetric(100*(p50["guard"]/p50["noguard"]-1), "%-cost")
	b.ReportMetric(100*(p50["guard"]/p50["nofilter"]-1), "%-cost-of-filter")
	b.ReportMetric(0, "ns/op") // of both together says nothing
}

func linkAddress(ns *podtest.NS, name string) (mac net.HardwareAddr, err error) {
	err = ns.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err == nil {
			mac = link.HardwareAddr
		}
		return err
	})
	return mac, err
}
