package prepare_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// stranger is somebody on another network of the pod's.
type stranger struct {
	*podtest.NS
	mac, pod net.HardwareAddr // its own, and that of the pod's eth1
}

// The pod's and the stranger's addresses on it.
var (
	podOnOther      = []string{"10.77.0.2/24", "fd00:77::2/64"}
	strangerOnOther = []string{"10.77.0.1/24", "fd00:77::1/64"}
)

// newStranger gives the pod an interface eth1, and forgets no sender there for its
// address; the pod forwards.
func newStranger(t *testing.T, pod *podtest.NS) stranger {
	t.Helper()
	s := stranger{podtest.New(t), net.HardwareAddr{2, 0, 0, 0, 0, 0x71}, net.HardwareAddr{2, 0, 0, 0, 0, 0x72}}
	s.IP(t, "link add eth0 address "+s.mac.String()+" type veth peer name eth1 address "+s.pod.String()+" netns "+pod.Path(), "link set eth0 up")
	pod.IP(t, "link set eth1 up")
	for i := range podOnOther {
		s.IP(t, "addr add "+strangerOnOther[i]+" dev eth0")
		pod.IP(t, "addr add "+podOnOther[i]+" dev eth1")
	}
	for name, value := range map[string]string{
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/eth1/rp_filter": "0", "ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
	} {
		if err := pod.Sysctl("net/"+name, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, ns := range []*podtest.NS{s.NS, pod} {
		if err := podtest.WaitSettled(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// sends sends a datagram to the pod's MAC.
func (s stranger) sends(t *testing.T, from, to netip.Addr, port uint16, word string) {
	t.Helper()
	frame := podtest.UDPFrame(s.mac, s.pod, netip.AddrPortFrom(from, 5000), netip.AddrPortFrom(to, port), []byte(word))
	if err := podtest.SendFrames(s.NS, "eth0", frame); err != nil {
		t.Fatal(err)
	}
}

// hears expects a word, and nothing before it.
func hears(t *testing.T, who string, packets net.PacketConn, word string) {
	t.Helper()
	b := make([]byte, 100)
	for {
		n, from, err := packets.ReadFrom(b)
		switch {
		case err != nil:
			t.Errorf("%s hears no %q: %v", who, word, err)
			return
		case string(b[:n]) == word:
			return
		}
		t.Errorf("%s hears %q from %v", who, b[:n], from)
	}
}

// Who is on another network of the pod's reaches neither by an alias, nor is taken for
// the other, though the pod forwards, and rewrites what it gets.
func TestRedirectAliasFromOthers(t *testing.T) {
	t.Parallel()
	r := newEdges(t, "8080", "")
	s := newStranger(t, r.pod.NS)
	for i, a := range r.families() {
		on := func(address string) netip.Addr { return netip.MustParsePrefix(address).Addr() }
		pod, own := on(podOnOther[i]), on(strangerOnOther[i])
		network, family := "udp4", "ip"
		if a.own.Is6() {
			network, family = "udp6", "ip6"
		}
		r.pod.Run(t, "nft", "add table "+family+" mesh; add chain "+family+" mesh in { type nat hook prerouting priority dstnat; }; "+
			"add rule "+family+" mesh in udp dport 5557 redirect to :5555")
		inPod, inVM := r.pod.listenUDP(t, network, ":5555"), r.vm.listenUDP(t, network, ":5556")
		s.sends(t, own, a.Pod, 5555, "to the pod's alias")
		s.sends(t, own, a.Pod, 5557, "to the pod's alias, where it is rewritten")
		s.sends(t, a.VM, pod, 5555, "as the VM")
		s.sends(t, a.Pod, pod, 5555, "as the pod")
		s.sends(t, own, a.VM, 5556, "to the VM's alias")
		s.sends(t, a.Pod, a.VM, 5556, "to the VM's alias, as the pod")
		s.sends(t, own, pod, 5557, "last")
		hears(t, "the pod", inPod, "last")
		conn, err := r.pod.dial("udp", netip.AddrPortFrom(a.VM, 5556), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("of the pod's")); err != nil {
			t.Fatal(err)
		}
		hears(t, "the VM", inVM, "of the pod's")
		// The pod reaches itself by it, as by any of its addresses.
		itself, err := r.pod.dial("udp", netip.AddrPortFrom(a.Pod, 5555), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer itself.Close()
		if _, err := itself.Write([]byte("itself")); err != nil {
			t.Fatal(err)
		}
		hears(t, "the pod", inPod, "itself")
	}
}

// Two interfaces of a pod are shared beside each other: each VM and the pod reach each
// other by their own aliases.
func TestRedirectTwoInterfaces(t *testing.T) {
	t.Parallel()
	p := podtest.NewPod(t, podtest.BridgeDual)
	s := newStranger(t, p.NS)
	dir := t.TempDir()
	o := prepare.Options{Datapath: "redirect"}
	p.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, o, "eth0", "eth1") })
	var plans []prepare.Plan
	p.In(t, func() (err error) {
		plans, err = prepare.ReadPlans(nil, dir)
		return err
	})
	for i, plan := range plans {
		n := plan.NIC()
		g := host{podtest.NewGuest(t, p.NS, n.Tap, n.MAC.HardwareAddr()).NS, "vm"}
		for _, address := range n.Addresses() {
			g.IP(t, "addr add "+address.String()+" dev eth0 nodad")
		}
		p.In(t, func() error { return plan.WaitForwarding(t.Context()) })
		if err := podtest.WaitSettled(t.Context(), g.NS); err != nil {
			t.Fatal(err)
		}
		far := []netip.Addr{p.Gateway, netip.MustParsePrefix(strangerOnOther[0]).Addr()}[i]
		paths := map[string]func() error{n.Interface + ": VM to its network": func() error { return g.pings(far, 56) }}
		for _, a := range n.Aliases {
			g.IP(t, "route add "+a.Pod.String()+" dev eth0")
			paths[n.Interface+": pod to VM by "+a.VM.String()] = func() error { return host{p.NS, "pod"}.pings(a.VM, 56) }
			paths[n.Interface+": VM to pod by "+a.Pod.String()] = func() error { return g.pings(a.Pod, 56) }
		}
		check(t, paths)
	}
	if len(plans) != 2 {
		t.Errorf("prepared are %v", plans)
	}
	if err := (host{s.NS, "stranger"}).pings(netip.MustParsePrefix(podOnOther[0]).Addr(), 56); err != nil {
		t.Error(err)
	}
	before := podtest.TakeSnapshot(t, p.NS)
	p.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, o, "eth0", "eth1") })
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, p.NS)); d != "" {
		t.Errorf("a second prepare changes:\n%s", d)
	}
}

// A rule or a route of the pod's that takes an alias away is told, and what is told to be
// done about it helps.
func TestRedirectUnreachedAlias(t *testing.T) {
	t.Parallel()
	r := newEdges(t, "8080", "")
	r.vm.serve(t, 80)
	unreached := func() (told []string) {
		r.pod.In(t, func() (err error) {
			told, err = r.plan.Unreached()
			return err
		})
		return told
	}
	if told := unreached(); len(told) > 0 {
		t.Fatalf("of a prepared pod it says %q", told)
	}
	for i, a := range r.families() {
		ip := []string{"", "-6 "}[i]
		gateway := []netip.Addr{r.shape.Gateway, r.shape.IPv6Gateway}[i].String()
		network := []string{a.VM.String(), netip.PrefixFrom(a.VM, 126).Masked().String()}[i]
		for _, c := range []struct {
			do []string
			by string // and what of the way out is to be done
			to string
		}{
			{[]string{"route add default via " + gateway + " dev eth0 onlink table 100", "rule add pref 100 table 100"}, "by eth0", "rule"},
			{[]string{"route add unreachable " + a.VM.String() + " table 101", "rule add pref 90 table 101"}, "", "rule"},
			{[]string{"route del " + network + " dev " + r.nic.Tap}, "", "route"},
		} {
			for _, do := range c.do {
				r.pod.Run(t, "ip", strings.Fields(ip+do)...)
			}
			told := unreached()
			if len(told) != 1 || !strings.Contains(told[0], c.by) {
				t.Errorf("%v: it says %q", c.do, told)
				continue
			}
			_, way, _ := strings.Cut(told[0], "ip "+ip+c.to)
			way, _, _ = strings.Cut(way, ";")
			r.pod.Run(t, "ip", strings.Fields(ip+c.to+way)...)
			if err := r.pod.asks("tcp", netip.AddrPortFrom(a.VM, 80), "vm", 100); err != nil {
				t.Errorf("%v, then %q: %v", c.do, way, err)
			}
			if c.to == "rule" {
				r.pod.Run(t, "ip", strings.Fields(ip+"rule del pref 1")...)
				r.pod.Run(t, "ip", strings.Fields(ip+strings.Replace(c.do[1], "add", "del", 1))...)
			}
		}
	}
}
