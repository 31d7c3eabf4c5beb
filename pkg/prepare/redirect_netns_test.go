package prepare_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// host is a namespace whose servers say whose they are.
type host struct {
	*podtest.NS
	name string
}

// serve answers by TCP and UDP at a port: with its name, and what it was sent.
func (h host) serve(t *testing.T, port int) {
	t.Helper()
	listener := h.Listen(t, fmt.Sprintf(":%d", port))
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, err := io.WriteString(conn, h.name+":")
				if err == nil {
					_, _ = io.Copy(conn, conn)
				}
			}()
		}
	}()
	var packets net.PacketConn
	h.In(t, func() (err error) {
		packets, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	})
	t.Cleanup(func() { packets.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := packets.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = packets.WriteTo(append([]byte(h.name+":"), b[:n]...), from)
			}
		}
	}()
}

// dial connects from the namespace. from is the local port; 0: any.
func (h host) dial(network string, to netip.AddrPort, from int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), podtest.Patience)
	defer cancel()
	return h.dialContext(ctx, network, to, from)
}

func (h host) dialContext(ctx context.Context, network string, to netip.AddrPort, from int) (conn net.Conn, err error) {
	d := net.Dialer{Control: reuseAddress}
	if from != 0 && network[:3] == "tcp" {
		d.LocalAddr = &net.TCPAddr{Port: from}
	} else if from != 0 {
		d.LocalAddr = &net.UDPAddr{Port: from}
	}
	return conn, errors.Join(h.Do(func() error {
		conn, err = d.DialContext(ctx, network, to.String())
		return nil
	}), err)
}

func reuseAddress(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}), err)
}

// says sends size bytes and expects them back from the server of that name, which it
// says once by TCP.
func says(conn net.Conn, name string, size int) error {
	sent := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
	want := append([]byte(name+":"), sent...)
	got := make([]byte, len(want))
	patience := podtest.Patience
	if conn.RemoteAddr().Network() == "udp" { // which may be lost
		patience = 3 * time.Second
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	n, err := io.ReadAtLeast(conn, got, len(want))
	if err == nil && !bytes.Equal(got[:n], want) {
		err = fmt.Errorf("%.20q answers, not %s", got[:n], name)
	}
	return err
}

// echoes sends a word by a connection on which a server has said its name, and expects
// it back.
func echoes(conn net.Conn, word string) error {
	_ = conn.SetDeadline(time.Now().Add(podtest.Patience))
	if _, err := conn.Write([]byte(word)); err != nil {
		return err
	}
	b := make([]byte, len(word))
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != word {
		return fmt.Errorf("%q comes back: %w", b, err)
	}
	return nil
}

// asks expects the server of that name at an address. By UDP it asks again: the first
// datagrams may be what the network learns its MTU and its neighbors from.
func (h host) asks(network string, to netip.AddrPort, name string, size int) (err error) {
	for range 10 {
		if err = h.ask(network, to, name, size); err == nil || network != "udp" {
			break
		}
	}
	return err
}

func (h host) ask(network string, to netip.AddrPort, name string, size int) error {
	conn, err := h.dial(network, to, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	return says(conn, name, size)
}

// refused expects that the network's ICMP error gets to who has asked.
func (h host) refused(to netip.AddrPort) error {
	conn, err := h.dial("udp", to, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(podtest.Patience))
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("a closed port says %w", err)
	}
	return nil
}

func (h host) pings(to netip.Addr, size int) error {
	_, err := h.Output(context.Background(), "ping", "-c1", "-w20", "-s", fmt.Sprint(size), to.String())
	return err
}

// trio is a pod that shares its network with a guest, and who is outside.
type trio struct {
	pod, vm, outside host
	plan             prepare.Plan
	nic              guest.NIC
	shape            *podtest.Pod
	dir              string
	o                prepare.Options
	before           string // what podSide said
	read             func(*discover.Interface)
}

// newTrio prepares a pod by redirect, and sits a guest on the tap.
func newTrio(t *testing.T, shape podtest.Shape, o prepare.Options) *trio {
	t.Helper()
	p := podtest.NewPod(t, shape)
	if err := podtest.WaitSettled(t.Context(), p.NS); err != nil {
		t.Fatal(err)
	}
	return newTrioOf(t, p, o, func(*discover.Interface) {})
}

// newTrioOf is newTrio of a pod of which something else is read than there is.
func newTrioOf(t *testing.T, p *podtest.Pod, o prepare.Options, read func(*discover.Interface)) *trio {
	t.Helper()
	o.Datapath = "redirect"
	r := &trio{read: read, shape: p, dir: t.TempDir(), o: o, pod: host{p.NS, "pod"}, outside: host{p.Outside, "outside"}}
	r.before = podSide(t, p.NS)
	r.prepare(t, o)
	g := podtest.NewGuest(t, p.NS, r.nic.Tap, p.MAC)
	r.vm = host{g.NS, "vm"}
	var lines []string
	if p.IPv4.IsValid() {
		lines = append(lines, "addr add "+p.IPv4.String()+" dev eth0", "route add default via "+p.Gateway.String()+" dev eth0 onlink")
	}
	if p.IPv6.IsValid() {
		lines = append(lines, "addr add "+p.IPv6.String()+" dev eth0 nodad", "route add default via "+p.IPv6Gateway.String()+" dev eth0 onlink")
	}
	g.IP(t, append(lines, fmt.Sprintf("link set eth0 mtu %d", p.MTU))...)
	if err := podtest.WaitSettled(t.Context(), g.NS); err != nil {
		t.Fatal(err)
	}
	r.pod.In(t, func() error { return r.plan.WaitForwarding(t.Context()) })
	return r
}

func (r *trio) prepare(t *testing.T, o prepare.Options) {
	t.Helper()
	r.pod.In(t, func() (err error) {
		interfaces, err := discover.ReadInterfaces()
		if err != nil {
			return err
		}
		in := interfaces[slices.IndexFunc(interfaces, func(in discover.Interface) bool { return in.Name == "eth0" })]
		r.read(&in)
		store, err := prepare.OpenStore(t.Context(), r.dir)
		if err != nil {
			return err
		}
		defer store.Close()
		if r.plan, err = prepare.NewPlan(in, o); err != nil {
			return err
		}
		r.nic = r.plan.NIC()
		_, _, err = prepare.Apply(t.Context(), nil, store, r.plan)
		return err
	})
}

// pair is the addresses of a family that the shape has: that of the VM and the pod, that
// of who is outside, and the aliases.
type pair struct {
	own, outside netip.Addr
	guest.Alias
}

func (r *trio) families() (out []pair) {
	if r.shape.IPv4.IsValid() {
		out = append(out, pair{own: r.shape.IPv4.Addr(), outside: podtest.OutsideIP})
	}
	if r.shape.IPv6.IsValid() {
		out = append(out, pair{own: r.shape.IPv6.Addr(), outside: podtest.OutsideIPv6})
	}
	for i := range out {
		n := slices.IndexFunc(r.nic.Aliases, func(a guest.Alias) bool { return a.VM.Is4() == out[i].own.Is4() })
		out[i].Alias = r.nic.Aliases[n]
	}
	return out
}

// paths are all that must work at once, by what they are, where the pod gets what is for
// one port from outside, and the VM what is for another.
func (r *trio) paths(podPort, vmPort uint16) map[string]func() error {
	all := map[string]func() error{}
	for _, a := range r.families() {
		at := netip.AddrPortFrom
		const large = 4000 // several fragments
		for name, do := range map[string]func() error{
			"outside to the pod's port":     func() error { return r.outside.asks("tcp", at(a.own, podPort), "pod", 9000) },
			"outside to the pod's UDP port": func() error { return r.outside.asks("udp", at(a.own, podPort), "pod", 100) },
			"outside to the VM":             func() error { return r.outside.asks("tcp", at(a.own, vmPort), "vm", 9000) },
			"outside to the VM by UDP":      func() error { return r.outside.asks("udp", at(a.own, vmPort), "vm", 100) },
			"pod to outside":                func() error { return r.pod.asks("tcp", at(a.outside, 80), "outside", 9000) },
			"pod to outside by UDP":         func() error { return r.pod.asks("udp", at(a.outside, 80), "outside", 100) },
			"VM to outside":                 func() error { return r.vm.asks("tcp", at(a.outside, 80), "outside", 9000) },
			"VM to outside by UDP":          func() error { return r.vm.asks("udp", at(a.outside, 80), "outside", 100) },
			"pod to the VM":                 func() error { return r.pod.asks("tcp", at(a.VM, vmPort), "vm", 9000) },
			"pod to the VM by UDP":          func() error { return r.pod.asks("udp", at(a.VM, vmPort), "vm", 100) },
			"VM to the pod":                 func() error { return r.vm.asks("tcp", at(a.Pod, 81), "pod", 9000) },
			"VM to the pod by UDP":          func() error { return r.vm.asks("udp", at(a.Pod, 81), "pod", 100) },
			"outside pings one of them":     func() error { return r.outside.pings(a.own, 56) },
			"pod pings outside":             func() error { return r.pod.pings(a.outside, 56) },
			"VM pings outside":              func() error { return r.vm.pings(a.outside, 56) },
			"pod pings the VM":              func() error { return r.pod.pings(a.VM, 56) },
			"VM pings the pod":              func() error { return r.vm.pings(a.Pod, 56) },
			"fragments to the pod's port":   func() error { return r.outside.asks("udp", at(a.own, podPort), "pod", large) },
			"fragments to the VM":           func() error { return r.outside.asks("udp", at(a.own, vmPort), "vm", large) },
			"fragments of the pod":          func() error { return r.pod.asks("udp", at(a.outside, 80), "outside", large) },
			"fragments of the VM":           func() error { return r.vm.asks("udp", at(a.outside, 80), "outside", large) },
			"fragments from pod to VM":      func() error { return r.pod.asks("udp", at(a.VM, vmPort), "vm", large) },
			"fragments from VM to pod":      func() error { return r.vm.asks("udp", at(a.Pod, 81), "pod", large) },
			"an ICMP error to the pod":      func() error { return r.pod.refused(at(a.outside, 9)) },
			"an ICMP error to the VM":       func() error { return r.vm.refused(at(a.outside, 9)) },
		} {
			all[name+" "+a.own.String()] = do
		}
	}
	return all
}

// check goes all of them at once.
func check(t *testing.T, paths map[string]func() error) {
	t.Helper()
	var all sync.WaitGroup
	for name, do := range paths {
		all.Go(func() {
			if err := do(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
}

// podSide is what a snapshot says of everything but the table and the tap, of which
// nothing is.
func podSide(t *testing.T, ns *podtest.NS) string {
	t.Helper()
	var b strings.Builder
	for _, words := range [][]string{
		{"-d", "link", "show", "dev", "eth0"},
		{"addr", "show", "dev", "eth0"},
		{"-4", "route", "show", "table", "all", "dev", "eth0"},
		{"-6", "route", "show", "table", "all", "dev", "eth0"},
		{"neigh", "show", "nud", "permanent", "dev", "eth0"},
		{"rule"},
		{"-6", "rule"},
	} {
		b.WriteString(ns.Run(t, "ip", words...))
	}
	b.WriteString(ns.Run(t, "sh", "-c", "cd /proc/sys/net; grep -r . ipv4/conf/eth0 ipv6/conf/eth0 ipv4/neigh/eth0 ipv6/neigh/eth0 ipv4/ip_forward ipv4/conf/all 2>/dev/null | grep -v stable_secret | sort"))
	return b.String()
}

// Pod and VM share the pod's addresses, and both can do all that each could alone, at
// once; the pod's interface is as it was.
func TestRedirectPaths(t *testing.T) {
	t.Parallel()
	for _, shape := range podtest.Shapes() {
		if shape == podtest.L2 {
			continue // it has no addresses
		}
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			var o prepare.Options
			if err := o.PodPorts.UnmarshalText([]byte("8080")); err != nil {
				t.Fatal(err)
			}
			r := newTrio(t, shape, o)
			r.pod.serve(t, 8080)
			r.pod.serve(t, 81)
			r.vm.serve(t, 80)
			r.outside.serve(t, 80)
			check(t, r.paths(8080, 80))
			check(t, r.paths(8080, 80))
			if now := podSide(t, r.pod.NS); now != r.before {
				t.Errorf("the pod interface:\n%s", podtest.Diff(r.before, now))
			}
		})
	}
}

// counted is how often the table has dropped for a reason.
func (r *trio) counted(t *testing.T, why prepare.Reason) (n uint64) {
	t.Helper()
	r.pod.In(t, func() error {
		plans, err := prepare.ReadPlans(nil, r.dir)
		if err != nil {
			return err
		}
		counters, err := plans[0].GuardCounters(nil)
		for _, c := range counters {
			if c.Reason == why {
				n += c.Packets
			}
		}
		return err
	})
	return n
}

// counts expects that what the VM does is counted, once it gets there.
func (r *trio) counts(t *testing.T, why prepare.Reason, do func()) {
	t.Helper()
	before := r.counted(t, why)
	do()
	for end := time.Now().Add(podtest.Patience); r.counted(t, why) == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s was not counted", why)
			return
		}
	}
}

// knock sends something from a port, and expects no answer.
func (h host) knock(network string, to netip.AddrPort, from int) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if conn, err := h.dialContext(ctx, network, to, from); err == nil {
		_, _ = conn.Write([]byte("x"))
		conn.Close()
	}
}

// A VM that uses the ports of a connection of the pod's, or a port that is kept for the
// pod, takes nothing from the pod, and that is counted, with the guard and without.
func TestRedirectCollision(t *testing.T) {
	t.Parallel()
	for _, noGuard := range []bool{false, true} {
		t.Run(fmt.Sprint("no guard ", noGuard), func(t *testing.T) {
			t.Parallel()
			o := prepare.Options{NoGuard: noGuard}
			if err := o.PodPorts.UnmarshalText([]byte("7000-7010")); err != nil {
				t.Fatal(err)
			}
			r := newTrio(t, podtest.BridgeDual, o)
			r.outside.serve(t, 80)
			for _, a := range r.families() {
				for _, network := range []string{"tcp", "udp"} {
					to := netip.AddrPortFrom(a.outside, 80)
					pods, err := r.pod.dial(network, to, 5000)
					if err != nil {
						t.Fatal(err)
					}
					defer pods.Close()
					if err := says(pods, "outside", 100); err != nil {
						t.Fatal(err)
					}
					r.counts(t, "pod-connection", func() { r.vm.knock(network, to, 5000) })
					still := says // a UDP server says its name each time
					if network == "tcp" {
						still = func(conn net.Conn, _ string, _ int) error { return echoes(conn, "more") }
					}
					if err := still(pods, "outside", 100); err != nil {
						t.Errorf("%s %s: the pod's connection: %v", network, a.own, err)
					}
					if err := r.vm.asks(network, to, "outside", 100); err != nil {
						t.Errorf("%s %s: the VM by another port: %v", network, a.own, err)
					}
					r.counts(t, "pod-port", func() { r.vm.knock(network, to, 7005) })
				}
			}
		})
	}
}

// Ports are changed while the VM runs: no connection of the other side is lost, and the
// record has the new ones.
func TestRedirectPortsChange(t *testing.T) {
	t.Parallel()
	var o prepare.Options
	if err := o.PodPorts.UnmarshalText([]byte("8080")); err != nil {
		t.Fatal(err)
	}
	r := newTrio(t, podtest.BridgeDual, o)
	r.pod.serve(t, 8080)
	r.pod.serve(t, 9000)
	r.vm.serve(t, 80)
	r.vm.serve(t, 9000)
	r.outside.serve(t, 80)
	type connection struct {
		what, name string
		net.Conn
	}
	var open []connection
	dial := func(what, name string, h host, a netip.Addr, port uint16) {
		t.Helper()
		conn, err := h.dial("tcp", netip.AddrPortFrom(a, port), 0)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := says(conn, name, 100); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		open = append(open, connection{what, name, conn})
	}
	for _, a := range r.families() {
		dial("to the pod's port", "pod", r.outside, a.own, 8080)
		dial("to the VM", "vm", r.outside, a.own, 80)
		dial("of the pod", "outside", r.pod, a.outside, 80)
		dial("of the VM", "outside", r.vm, a.outside, 80)
		dial("pod to VM", "vm", r.pod, a.VM, 80)
		if err := r.outside.asks("tcp", netip.AddrPortFrom(a.own, 9000), "vm", 10); err != nil {
			t.Error(err)
		}
	}
	if err := o.PodPorts.UnmarshalText([]byte("8080,9000/tcp")); err != nil {
		t.Fatal(err)
	}
	r.prepare(t, prepare.Options{Datapath: "redirect", PodPorts: o.PodPorts})
	for _, a := range r.families() {
		if err := r.outside.asks("tcp", netip.AddrPortFrom(a.own, 9000), "pod", 10); err != nil {
			t.Error(err)
		}
		if err := r.outside.asks("udp", netip.AddrPortFrom(a.own, 9000), "vm", 10); err != nil {
			t.Error(err)
		}
	}
	for _, c := range open {
		if err := echoes(c, "more"); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	var plans []prepare.Plan
	r.pod.In(t, func() (err error) { plans, err = prepare.ReadPlans(nil, r.dir); return err })
	if len(plans) != 1 || !strings.Contains(plans[0].String(), "9000") {
		t.Errorf("recorded is %v", plans)
	}
}

// Where the VM's ports are named, the pod has all others, and echo requests.
func TestRedirectVMPorts(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.CalicoDual, podtest.BridgeDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			var o prepare.Options
			if err := o.VMPorts.UnmarshalText([]byte("22")); err != nil {
				t.Fatal(err)
			}
			r := newTrio(t, shape, o)
			r.pod.serve(t, 80)
			r.pod.serve(t, 81)
			r.vm.serve(t, 22)
			r.outside.serve(t, 80)
			check(t, r.paths(80, 22))
			check(t, r.paths(80, 22))
			for _, a := range r.families() { // the VM's servers at other ports are not asked
				capture := podtest.StartCapture(t, r.vm.NS, "eth0", "icmp[icmptype] = 8 or icmp6[icmp6type] = 128 or port 9")
				if err := r.outside.pings(a.own, 56); err != nil {
					t.Error(err)
				}
				if err := r.outside.refused(netip.AddrPortFrom(a.own, 9)); err != nil {
					t.Errorf("a closed port of the pod: %v", err)
				}
				if seen := capture.Stop(); len(seen) > 0 {
					t.Errorf("the VM got %q", seen)
				}
				// A connection that the pod and the VM have by the same ports is the pod's.
				to := netip.AddrPortFrom(a.outside, 80)
				pods, err := r.pod.dial("tcp", to, 5000)
				if err != nil {
					t.Fatal(err)
				}
				defer pods.Close()
				r.counts(t, "pod-connection", func() { r.vm.knock("tcp", to, 5000) })
				if err := says(pods, "outside", 100); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// flowsOf are the pod's connections as the table knows them: how long each is known,
// by the peer's port.
func (r *trio) flowsOf(t *testing.T, set string) string {
	t.Helper()
	return r.pod.Run(t, "nft", "list", "set", "netdev", "virt-launcher-net-eth0", set)
}

// knows waits until a set has a flow, as nft(8) writes it: what a guest sends is on its way.
func (r *trio) knows(t *testing.T, set, flow string) {
	t.Helper()
	for end := time.Now().Add(podtest.Patience); ; time.Sleep(10 * time.Millisecond) {
		known := r.flowsOf(t, set)
		if strings.Contains(known, flow) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("known are\n%s", known)
		}
	}
}

// A connection of the pod's that is idle is known for days; one that was closed by
// either side, or refused, for some minutes at most; a reset to a stray segment makes
// none.
func TestRedirectFlows(t *testing.T) {
	t.Parallel()
	r := newTrio(t, podtest.BridgeDual, prepare.Options{})
	r.outside.serve(t, 80)
	for _, a := range r.families() {
		set := "pod_flows_ip"
		if a.own.Is6() {
			set = "pod_flows_ip6"
		}
		known := func(port int) string {
			if m := regexp.MustCompile(fmt.Sprintf(`\. %d (?:timeout \S+ )?expires (\S+)`, port)).FindStringSubmatch(r.flowsOf(t, set)); m != nil {
				return m[1]
			}
			return ""
		}
		to := netip.AddrPortFrom(a.outside, 80)
		idle, err := r.pod.dial("tcp", to, 6001) // nothing is sent
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		if e := known(6001); !strings.HasPrefix(e, "4d") && e != "5d" {
			t.Errorf("an idle connection is known for %q", e)
		}
		closed, err := r.pod.dial("tcp", to, 6002)
		if err != nil {
			t.Fatal(err)
		}
		if err := says(closed, "outside", 5000); err != nil {
			t.Error(err)
		}
		if e := known(6002); !strings.HasPrefix(e, "4d") && e != "5d" {
			t.Errorf("a connection in use is known for %q", e)
		}
		closed.Close()
		// Until both ends and the last acknowledgment have passed.
		for end := time.Now().Add(podtest.Patience); !strings.HasPrefix(known(6002), "1m") && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		if e := known(6002); !strings.HasPrefix(e, "1m") && e != "2m" {
			t.Errorf("a closed connection is known for %q", e)
		}
		if _, err := r.pod.dial("tcp", netip.AddrPortFrom(a.outside, 9), 6003); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("a closed port: %v", err)
		}
		if e := known(6003); !strings.HasPrefix(e, "1m") && e != "2m" {
			t.Errorf("a refused connection is known for %q", e)
		}
	}
}

// What somebody does to a pod that is shared is told, and prepare puts it right.
func TestRedirectDifferences(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.BridgeDual)
	dir, o := t.TempDir(), prepare.Options{Datapath: "redirect"}
	var plan prepare.Plan
	again := func() (err error) {
		plan, err = prepare.ApplyOne(t.Context(), dir, o, "eth0")
		return err
	}
	pod.In(t, again)
	alias := plan.NIC().Aliases[1].VM.String()
	pod.IP(t, "link add sw0 "+podtest.Switch)
	for _, c := range []struct{ do, want string }{
		{"ip link set tap-eth0 down", "tap-eth0 is down, not up"},
		{"ip link set tap-eth0 mtu 1400", "tap-eth0 is of MTU 1400, not of 1500"},
		{"ip link set tap-eth0 address 02:00:00:00:00:07", "tap-eth0 is of MAC 02:00:00:00:00:07"},
		{"ip link set tap-eth0 master sw0", "tap-eth0 is a port of sw0, not of nothing"},
		{"ip link set tap-eth0 arp on", "tap-eth0 is with ARP on, not off"},
		{"ip -4 addr flush dev tap-eth0", "tap-eth0 is without the aliases 169.254."},
		{"ip -6 addr flush dev tap-eth0", "tap-eth0 is without the aliases fd"},
		{"ip neigh del " + alias + " dev tap-eth0", "and " + alias},
		{"ip link delete tap-eth0", "tap-eth0 is missing, which should be a tap"},
		{"nft delete table netdev virt-launcher-net-eth0", "the table that shares eth0 with the VM is missing\n"},
		{"nft delete table ip virt-launcher-net-eth0", "the table that keeps the aliases of eth0 to the pod and the VM is missing\n"},
		{"nft flush chain ip6 virt-launcher-net-eth0 to_stack", "the table that keeps the aliases of eth0 to the pod and the VM is changed (chain to_stack has 0 rules"},
	} {
		words := strings.Fields(c.do)
		pod.Run(t, words[0], words[1:]...)
		look := func() (text string) {
			pod.In(t, func() error {
				found, err := prepare.Differences(plan)
				for _, d := range found {
					text += d.String() + "\n"
				}
				return err
			})
			return text
		}
		if text := look(); !strings.Contains(text, c.want) {
			t.Errorf("after %s: %q, want %s", c.do, text, c.want)
		}
		pod.In(t, again)
		if text := look(); text != "" {
			t.Errorf("after %s and prepare: %s", c.do, text)
		}
	}
}

// The pod's interface is not this program's to change. What it no longer carries of the VM's
// is told, until somebody puts it right.
func TestRedirectMTUOfPod(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	dir, o := t.TempDir(), prepare.Options{Datapath: "redirect", MTU: 1400}
	var plan prepare.Plan
	again := func() (err error) {
		plan, err = prepare.ApplyOne(t.Context(), dir, o, "eth0")
		return err
	}
	pod.In(t, again)
	for mtu, want := range map[string]string{
		"1300": "eth0 is of MTU 1300, not of 1400", "1399": "eth0 is of MTU 1399, not of 1400", "1400": "", "1450": "", "9000": "",
	} {
		pod.IP(t, "link set eth0 mtu "+mtu)
		for range 2 {
			pod.In(t, func() error {
				found, err := prepare.Differences(plan)
				var text string
				for _, d := range found {
					text += d.String()
					if !strings.Contains(d.Remedy, "ip link set eth0 mtu 1400") {
						t.Errorf("the remedy is %s", d.Remedy)
					}
				}
				if text != want {
					t.Errorf("with an MTU of %s: %q, want %q", mtu, text, want)
				}
				return err
			})
			pod.In(t, again) // it repairs nothing, and fails at nothing
		}
	}
}

// A pod whose record is lost is known by its tap, and left alone.
func TestRedirectUnrecorded(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	o := prepare.Options{Datapath: "redirect"}
	pod.In(t, func() error { return prepare.ApplyAll(t.Context(), t.TempDir(), o, "eth0") })
	refused(t, pod, t.TempDir(), o, "tap-eth0", "is taken", "state directory")
	pod.In(t, func() error {
		found, err := prepare.ReadUnrecorded(t.TempDir())
		if len(found) != 1 || found[0].Interface != "eth0" || !slices.Equal(found[0].Links, []string{"tap-eth0"}) {
			t.Errorf("unrecorded are %+v", found)
		}
		if err := prepare.RestoreAll(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "eth0 is prepared (there are tap-eth0)") {
			t.Errorf("restore says %v", err)
		}
		return err
	})
}

// An interface whose name is too long for a prefix is known by its own name alone.
func TestUnrecordedOfLongName(t *testing.T) {
	t.Parallel()
	const name = "net1234567890ab"
	for _, datapath := range []string{podtest.SwitchPath, "redirect"} {
		pod := podtest.NewPod(t, podtest.Flannel)
		pod.IP(t, "link set eth0 down")
		pod.IP(t, "link set eth0 name "+name+" up")
		pod.In(t, func() error {
			return prepare.ApplyAll(t.Context(), t.TempDir(), prepare.Options{Datapath: datapath}, name)
		})
		pod.In(t, func() error {
			found, err := prepare.ReadUnrecorded(t.TempDir())
			if len(found) != 1 || found[0].Interface != name {
				t.Errorf("%s: unrecorded are %+v", datapath, found)
			}
			return err
		})
	}
}

// shared prepares eth0 of a pod.
func shared(t *testing.T, pod *podtest.Pod, o prepare.Options) (plan prepare.Plan) {
	t.Helper()
	pod.In(t, func() (err error) {
		plan, err = prepare.ApplyOne(t.Context(), t.TempDir(), o, "eth0")
		return err
	})
	return plan
}

// Networks of other kinds are shared likewise: of a macvlan, beside one on the pod
// interface, with a route by a nexthop object, and without addresses.
func TestRedirectUplinks(t *testing.T) {
	t.Parallel()
	o := prepare.Options{Datapath: "redirect"}
	t.Run("macvlan", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewBarePod(t)
		pod.Node.IP(t, "link add parent type veth peer name far", "link set parent up", "link set far up", "addr add 10.3.0.1/24 dev far")
		pod.Node.IP(t, "link add mv0 link parent netns "+pod.Path()+" "+podtest.Macvlan)
		pod.IP(t, "link set mv0 name eth0 up", "addr add 10.3.0.9/24 dev eth0")
		plan := shared(t, pod, o)
		n := plan.NIC()
		g := podtest.NewGuest(t, pod.NS, "tap-eth0", n.MAC.HardwareAddr())
		pod.In(t, func() error { return plan.WaitForwarding(t.Context()) })
		g.IP(t, "addr add 10.3.0.9/24 dev eth0", "route add "+n.Aliases[0].Pod.String()+" dev eth0") // as DHCP tells it, since there is no gateway
		far := netip.MustParseAddr("10.3.0.1")
		check(t, map[string]func() error{
			"VM": func() error { return host{g.NS, "vm"}.pings(far, 56) }, "pod": func() error { return host{pod.NS, "pod"}.pings(far, 56) },
			"to the VM": func() error { return host{pod.Node, "node"}.pings(netip.MustParseAddr("10.3.0.9"), 56) },
			"alias":     func() error { return host{pod.NS, "pod"}.pings(n.Aliases[0].VM, 56) },
		})
	})
	t.Run("a macvlan on it", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.BridgeCNI)
		pod.IP(t, "link add mv0 link eth0 "+podtest.Macvlan, "link set mv0 up", "addr add 10.22.0.77/24 dev mv0",
			"nexthop add id 7 via "+pod.Gateway.String()+" dev eth0", "route add 10.92.0.0/16 nhid 7")
		pod.In(t, func() error { return prepare.ApplyAll(t.Context(), t.TempDir(), o, "eth0") })
		if err := (host{pod.Node, "node"}).pings(netip.MustParseAddr("10.22.0.77"), 56); err != nil {
			t.Error(err)
		}
	})
	t.Run("no addresses", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.L2)
		plan := shared(t, pod, o)
		g := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
		pod.In(t, func() error { return plan.WaitForwarding(t.Context()) })
		pod.Node.IP(t, "addr add 10.4.0.1/24 dev l2br0")
		g.IP(t, "addr add 10.4.0.7/24 dev eth0")
		if err := (host{g.NS, "vm"}).pings(netip.MustParseAddr("10.4.0.1"), 3000); err != nil {
			t.Error(err)
		}
		if err := (host{pod.Node, "node"}).pings(netip.MustParseAddr("10.4.0.7"), 3000); err != nil {
			t.Error(err)
		}
	})
}

// On a kernel without the egress hook the pod's own connections are told by the range of
// ports that its kernel takes for them; all else is as with it.
func TestRedirectWithoutEgressHook(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.CalicoDual, podtest.BridgeDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			var o prepare.Options
			if err := o.PodPorts.UnmarshalText([]byte("8080")); err != nil {
				t.Fatal(err)
			}
			p := podtest.NewPod(t, shape)
			if err := p.Sysctl("net/ipv4/ip_local_port_range", "28672 32767"); err != nil {
				t.Fatal(err)
			}
			if err := podtest.WaitSettled(t.Context(), p.NS); err != nil {
				t.Fatal(err)
			}
			whole := podtest.TakeSnapshot(t, p.NS)
			r := newTrioOf(t, p, o, func(in *discover.Interface) { in.NoEgress, in.LocalPorts = true, [2]uint16{28672, 32767} })
			if strings.Contains(r.plan.String(), "hook egress") || len(r.plan.Warnings(false)) > 0 {
				t.Errorf("planned is\n%s\nwarned of is %q", r.plan, r.plan.Warnings(false))
			}
			r.pod.serve(t, 8080)
			r.pod.serve(t, 81)
			r.vm.serve(t, 80)
			r.outside.serve(t, 80)
			check(t, r.paths(8080, 80))
			check(t, r.paths(8080, 80))
			for _, a := range r.families() {
				r.counts(t, "pod-port", func() { r.vm.knock("tcp", netip.AddrPortFrom(a.outside, 80), 30000) })
			}
			if now := podSide(t, r.pod.NS); now != r.before {
				t.Errorf("the pod interface:\n%s", podtest.Diff(r.before, now))
			}
			rules := func() string { // but for the tap's index
				return regexp.MustCompile(`(?m)^.*immediate reg 1 0x0.*\n`).ReplaceAllString(podtest.Expressions(t, r.pod.NS), "")
			}
			written := rules()
			r.pod.In(t, func() error {
				found, err := prepare.Differences(r.plan)
				if len(found) > 0 {
					t.Errorf("differences are %v", found)
				}
				return errors.Join(err, prepare.RestoreAll(t.Context(), r.dir))
			})
			if d := podtest.Diff(whole, podtest.TakeSnapshot(t, p.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
			r.pod.Run(t, "sh", "-e", "-c", r.plan.String())
			if d := podtest.Diff(written, rules()); d != "" {
				t.Errorf("a shell makes of the plan (-prepared +scripted):\n%s", d)
			}
		})
	}
}
