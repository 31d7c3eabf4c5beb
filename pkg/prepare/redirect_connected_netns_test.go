package prepare_test

import (
	"io"
	"net"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// open is a connection of the pod's: its own end, and what has the other end speak.
type open struct {
	what  string
	own   net.Conn
	speak func() error
}

// opens has the pod open a connection to who is outside.
func opens(t *testing.T, pod, outside host, network string, to netip.AddrPort) open {
	t.Helper()
	o := open{what: network + " to " + to.String()}
	var err error
	if network == "udp" {
		packets := outside.listenUDP(t, network, to.String())
		if o.own, err = pod.dial(network, to, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := o.own.Write([]byte("first")); err != nil {
			t.Fatal(err)
		}
		_, from, err := packets.ReadFrom(make([]byte, 10))
		if err != nil {
			t.Fatal(err)
		}
		o.speak = func() error {
			_, err := packets.WriteTo([]byte("spoken"), from)
			return err
		}
	} else {
		listener := outside.Listen(t, to.String())
		if o.own, err = pod.dial(network, to, 0); err != nil {
			t.Fatal(err)
		}
		peer, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { peer.Close() })
		o.speak = func() error {
			_, err := io.WriteString(peer, "spoken")
			return err
		}
	}
	t.Cleanup(func() { o.own.Close() })
	return o
}

// A connection that the pod has open when it is prepared is its own, though only its peer
// speaks from then on; so it is when the table is lost and made again. That it is known is
// no difference.
func TestRedirectKnowsOpenConnections(t *testing.T) {
	t.Parallel()
	p := podtest.NewPod(t, podtest.BridgeDual)
	if err := podtest.WaitSettled(t.Context(), p.NS); err != nil {
		t.Fatal(err)
	}
	var all []open
	pod, outside := host{p.NS, "pod"}, host{p.Outside, "outside"}
	for _, to := range []netip.Addr{podtest.OutsideIP, podtest.OutsideIPv6} {
		for _, network := range []string{"tcp", "udp"} {
			all = append(all, opens(t, pod, outside, network, netip.AddrPortFrom(to, 7000)))
		}
	}
	r := newTrioOf(t, p, prepare.Options{}, func(*discover.Interface) {})
	vm := podtest.StartCapture(t, r.vm.NS, "eth0", "port 7000")
	heard := func(when string) {
		t.Helper()
		for _, c := range all {
			if err := c.speak(); err != nil {
				t.Fatal(err)
			}
			_ = c.own.SetReadDeadline(time.Now().Add(podtest.Patience))
			b := make([]byte, 10)
			if n, err := c.own.Read(b); err != nil || string(b[:n]) != "spoken" {
				t.Errorf("%s: %s hears %q: %v", when, c.what, b[:n], err)
			}
		}
	}
	known := r.flowsOf(t, "pod_flows_ip") + r.flowsOf(t, "pod_flows_ip6")
	for _, want := range []string{
		`192\S+ \. tcp \. 7000 \. \d+ expires (4d|5d)`, `192\S+ \. udp \. 7000 \. \d+ timeout 2m expires [12]m`,
		`:\S+ \. tcp \. 7000 \. \d+ expires (4d|5d)`, `:\S+ \. udp \. 7000 \. \d+ timeout 2m expires [12]m`,
	} {
		if !regexp.MustCompile(want).MatchString(known) {
			t.Errorf("known are\n%s, not %s", known, want)
		}
	}
	p.In(t, func() error {
		found, err := prepare.Differences(r.plan)
		if len(found) > 0 {
			t.Errorf("differences are %v", found)
		}
		return err
	})
	heard("prepared")
	r.pod.Run(t, "nft", "delete", "table", "netdev", "virt-launcher-net-eth0")
	r.prepare(t, r.o)
	heard("the table is made again")
	if seen := vm.Stop(); len(seen) > 0 {
		t.Errorf("the VM got %q", seen)
	}
}
