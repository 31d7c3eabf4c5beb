package prepare_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// newEdges is a pod by BridgeDual that keeps ports, or gives them to the VM.
func newEdges(t *testing.T, pods, vms string) *trio {
	t.Helper()
	var o prepare.Options
	for ports, to := range map[string]*guest.Ports{pods: &o.PodPorts, vms: &o.VMPorts} {
		if ports == "" {
			continue
		}
		if err := to.UnmarshalText([]byte(ports)); err != nil {
			t.Fatal(err)
		}
	}
	return newTrio(t, podtest.BridgeDual, o)
}

// A closed port of the alias refuses, as any other does: the error quotes what was sent.
func TestRedirectErrorsPassTheAlias(t *testing.T) {
	t.Parallel()
	r := newEdges(t, "8080", "")
	for _, a := range r.families() {
		if err := r.pod.refused(netip.AddrPortFrom(a.VM, 9)); err != nil {
			t.Errorf("the pod at %s: %v", a.VM, err)
		}
		if err := r.vm.refused(netip.AddrPortFrom(a.Pod, 9)); err != nil {
			t.Errorf("the VM at %s: %v", a.Pod, err)
		}
	}
}

// What the pod opens is its, from a port of the VM's too.
func TestRedirectPodOpensFromVMPort(t *testing.T) {
	t.Parallel()
	r := newEdges(t, "", "5000-65535")
	r.outside.serve(t, 80)
	for _, a := range r.families() {
		for _, network := range []string{"tcp", "udp"} {
			conn, err := r.pod.dial(network, netip.AddrPortFrom(a.outside, 80), 5000)
			if err != nil {
				t.Errorf("%s %s: %v", network, a.own, err)
				continue
			}
			defer conn.Close()
			if err := says(conn, "outside", 100); err != nil {
				t.Errorf("%s %s: %v", network, a.own, err)
			}
		}
	}
}

// Neither gets who opens a connection to the other by sending from its port to theirs:
// what opens one is no answer. What the pod has noted stays its: the VM's answer is
// dropped, and counted.
func TestRedirectClaims(t *testing.T) {
	t.Parallel()
	const port, theirs = 8080, 4000
	t.Run("VM", func(t *testing.T) {
		t.Parallel()
		r := newEdges(t, "", "22")
		for _, a := range r.families() {
			r.vm.knock("tcp", netip.AddrPortFrom(a.outside, theirs), port)
		}
		r.pod.serve(t, port)
		r.vm.serve(t, port)
		for _, a := range r.families() {
			conn, err := r.outside.dial("tcp", netip.AddrPortFrom(a.own, port), theirs)
			if err != nil {
				t.Errorf("%s: %v", a.own, err)
				continue
			}
			defer conn.Close()
			if err := says(conn, "pod", 100); err != nil {
				t.Errorf("%s: %v", a.own, err)
			}
		}
	})
	// What the VM has sent from a port before that becomes the pod's is no claim to who
	// connects to the pod there.
	for _, then := range [][2]string{{"8080", ""}, {"", "22"}} {
		t.Run("VM before", func(t *testing.T) {
			t.Parallel()
			r := newEdges(t, "", "")
			for _, a := range r.families() {
				var frames [][]byte
				for _, flags := range []nft.Flags{nft.SYN, nft.SYN | nft.ACK, nft.PSH | nft.ACK} {
					frames = append(frames, tcpFrame(r.shape.MAC, netip.AddrPortFrom(a.own, port), netip.AddrPortFrom(a.outside, theirs), flags))
				}
				if err := podtest.SendFrames(r.vm.NS, "eth0", frames...); err != nil {
					t.Fatal(err)
				}
				suffix := map[bool]string{true: "_ip", false: "_ip6"}[a.own.Is4()]
				for _, set := range []string{"vm_flows", "vm_accepted"} {
					r.knows(t, set+suffix, ". tcp . 4000 . 8080 ")
				}
			}
			r.turn(t, then[0], then[1])
			r.pod.serve(t, port)
			r.vm.serve(t, port)
			capture := podtest.StartCapture(t, r.vm.NS, "eth0", "inbound and tcp port 8080")
			for _, a := range r.families() {
				conn, err := r.outside.dial("tcp", netip.AddrPortFrom(a.own, port), theirs)
				if err != nil {
					t.Errorf("%s: %v", a.own, err)
					continue
				}
				defer conn.Close()
				if err := says(conn, "pod", 100); err != nil {
					t.Errorf("%s: %v", a.own, err)
				}
			}
			if seen := capture.Stop(); len(seen) > 0 {
				t.Errorf("the VM got %q", seen)
			}
		})
	}
	t.Run("pod", func(t *testing.T) {
		t.Parallel()
		r := newEdges(t, "9000", "")
		for _, a := range r.families() {
			r.pod.knock("tcp", netip.AddrPortFrom(a.outside, theirs), port)
		}
		r.pod.serve(t, port)
		r.vm.serve(t, port)
		for _, a := range r.families() {
			r.counts(t, "pod-connection", func() { r.outside.knock("tcp", netip.AddrPortFrom(a.own, port), theirs) })
		}
	})
}

// tcpFrame is a segment without data, to whoever is on the link.
func tcpFrame(source net.HardwareAddr, from, to netip.AddrPort, flags nft.Flags) []byte {
	header := make([]byte, 20)
	binary.BigEndian.PutUint16(header, from.Port())
	binary.BigEndian.PutUint16(header[2:], to.Port())
	header[12], header[13] = 5<<4, byte(flags)
	neighbor := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	if from.Addr().Is6() {
		return podtest.IPv6Frame(source, neighbor, from.Addr(), to.Addr(), unix.IPPROTO_TCP, 64, header)
	}
	frame := podtest.UDPFrame(source, neighbor, from, to, header[podtest.UDPLen:])
	frame[podtest.EthernetLen+9] = unix.IPPROTO_TCP // the header's checksum, that nobody here looks at, stays
	copy(frame[podtest.EthernetLen+podtest.IPv4Len:], header)
	return frame
}

// Fragments for one side do not fill the other's stack, which keeps for half a minute what
// it waits for the rest of, and then takes no fragments any more.
func TestRedirectFragments(t *testing.T) {
	t.Parallel()
	for _, ports := range [][2]string{{"8080", ""}, {"", "80"}} {
		r := newEdges(t, ports[0], ports[1])
		for _, ns := range []host{r.pod, r.vm} {
			for _, room := range []string{"ipv4.ipfrag_low", "ipv4.ipfrag_high", "ipv6.ip6frag_low", "ipv6.ip6frag_high"} {
				ns.Run(t, "sysctl", "-qw", "net."+room+"_thresh=65536")
			}
		}
		r.pod.serve(t, 8080)
		r.vm.serve(t, 80)
		for _, a := range r.families() {
			for _, to := range []struct {
				name string
				port uint16
			}{{"vm", 80}, {"pod", 8080}} {
				for range 30 {
					if err := r.outside.asks("udp", netip.AddrPortFrom(a.own, to.port), to.name, 8000); err != nil {
						t.Fatalf("%q: the %s at %s: %v", ports, to.name, a.own, err)
					}
				}
			}
			if err := r.outside.asks("udp", netip.AddrPortFrom(a.own, 80), "vm", 8000); err != nil {
				t.Errorf("%q: the VM at %s, after fragments for the pod: %v", ports, a.own, err)
			}
		}
	}
}

// All fragments of what a DHCP server sends go to the pod, as the first one does.
func TestRedirectFragmentsOfDHCPServer(t *testing.T) {
	t.Parallel()
	r := newEdges(t, "8080", "")
	for _, a := range r.families() {
		server, client := 67, 68
		if a.own.Is6() {
			server, client = 547, 546
		}
		r.pod.serve(t, client)
		conn, err := r.outside.dial("udp", netip.AddrPortFrom(a.own, uint16(client)), server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := says(conn, "pod", 4000); err != nil {
			t.Errorf("the pod at %s: %v", a.own, err)
		}
	}
}

// A datagram's later fragments that come first are not taken for those of another protocol's
// with the same number, of which the pod has just got the first one.
func TestRedirectFragmentsOfAnotherProtocol(t *testing.T) {
	t.Parallel()
	r := newEdges(t, "8080", "")
	neighbor := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for _, a := range r.families() {
		network, fragment := "udp4", podtest.Fragment4
		if a.own.Is6() {
			network, fragment = "udp6", podtest.Fragment6
		}
		heard := r.vm.listenUDP(t, network, ":80")
		frame := func(port uint16) []byte {
			return podtest.UDPFrame(neighbor, r.shape.MAC, netip.AddrPortFrom(a.outside, 1), netip.AddrPortFrom(a.own, port), make([]byte, 32))
		}
		toPod, toVM := frame(8080), frame(80)
		frames := [][]byte{fragment(toPod, 0, 32, unix.IPPROTO_TCP), fragment(toVM, 32, 40, unix.IPPROTO_UDP), fragment(toVM, 0, 32, unix.IPPROTO_UDP)}
		if err := podtest.SendFrames(r.shape.Node, r.shape.NodeLink, frames...); err != nil {
			t.Fatal(err)
		}
		if _, _, err := heard.ReadFrom(make([]byte, 100)); err != nil {
			t.Errorf("the VM at %s: %v", a.own, err)
		}
	}
}

// A connection that the pod resets is not known for days.
func TestRedirectForgetsResets(t *testing.T) {
	t.Parallel()
	r := newEdges(t, "8080", "")
	r.outside.serve(t, 80)
	for _, a := range r.families() {
		conn, err := r.pod.dial("tcp", netip.AddrPortFrom(a.outside, 80), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := says(conn, "outside", 100); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	known := func() string { return r.pod.Run(t, "nft", "list", "ruleset", "netdev") }
	days := regexp.MustCompile(`expires \S*[dh]`)
	for end := time.Now().Add(podtest.Patience); days.MatchString(known()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still known for days:\n%s", known())
		}
	}
	if !strings.Contains(known(), " expires ") {
		t.Error("they are not known for a while either")
	}
}

// Frames with tags are to whom they would be without: the pod's stack takes VLAN 0's for
// its own, and must not refuse what is for the VM, nor what is sent to its alias be heard.
func TestRedirectTags(t *testing.T) {
	t.Parallel()
	r := newEdges(t, "8080,5555", "")
	neighbor := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	tagged := func(frame []byte, types ...uint16) []byte {
		var tags []byte
		for _, kind := range types {
			tags = append(tags, byte(kind>>8), byte(kind), 0, 0)
		}
		return slices.Concat(frame[:12], tags, frame[12:])
	}
	for _, a := range r.families() {
		network := map[bool]string{true: "udp4", false: "udp6"}[a.own.Is4()]
		var heard net.PacketConn
		r.pod.In(t, func() (err error) {
			heard, err = net.ListenPacket(network, ":5555")
			return err
		})
		defer heard.Close()
		capture := podtest.StartCapture(t, r.shape.Node, r.shape.NodeLink, "inbound and (icmp or icmp6) and not icmp6[icmp6type] > 4")
		frame := func(from, to netip.Addr, port uint16, word string) []byte {
			return podtest.UDPFrame(neighbor, r.shape.MAC, netip.AddrPortFrom(from, 1), netip.AddrPortFrom(to, port), []byte(word))
		}
		var frames [][]byte
		for _, tags := range [][]uint16{{unix.ETH_P_8021Q}, {unix.ETH_P_8021Q, unix.ETH_P_8021Q}, {unix.ETH_P_8021AD, unix.ETH_P_8021Q}} {
			frames = append(frames,
				tagged(frame(a.outside, a.own, 9, "to a closed port of the VM"), tags...),
				tagged(frame(a.outside, a.Pod, 5555, "to the alias"), tags...),
				tagged(frame(a.VM, a.own, 5555, "from the alias"), tags...))
		}
		frames = append(frames, tagged(frame(a.outside, a.own, 5555, "last"), unix.ETH_P_8021Q))
		if err := podtest.SendFrames(r.shape.Node, r.shape.NodeLink, frames...); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		_ = heard.SetDeadline(time.Now().Add(podtest.Patience))
		for {
			n, _, err := heard.ReadFrom(b)
			if err != nil {
				t.Errorf("%s: what is tagged for the pod's port: %v", a.own, err)
				break
			}
			if string(b[:n]) == "last" {
				break
			}
			t.Errorf("%s: heard %q", a.own, b[:n])
		}
		if seen := capture.Stop(); len(seen) > 0 {
			t.Errorf("%s: the pod refuses what is for the VM: %q", a.own, seen)
		}
	}
}

// A pod has an IPv6 address where links that are made in it have none, as some CNIs leave
// it: so have the placeholder, and the tap its alias. It is put back.
func TestIPv6OffByDefault(t *testing.T) {
	t.Parallel()
	for datapath, c := range map[string]struct{ link, has string }{"bridge": {"eth0", "fd00:10:22::7/64"}, "redirect": {"tap.0", "/126"}} {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			p := podtest.NewPod(t, podtest.BridgeDual)
			p.Run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
			before := podtest.TakeSnapshot(t, p.NS)
			dir := t.TempDir()
			p.In(t, func() error {
				_, err := prepare.ApplyOne(t.Context(), dir, prepare.Options{Datapath: datapath, Names: map[string]string{"tap": "tap.0"}}, "eth0")
				return err
			})
			if has := p.Run(t, "ip", "-6", "-brief", "addr", "show", "dev", c.link); !strings.Contains(has, c.has) {
				t.Errorf("%s has %q, not %s", c.link, has, c.has)
			}
			p.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, p.NS)); d != "" {
				t.Errorf("it is not put back:\n%s", d)
			}
		})
	}
}

// An alias is not taken out of a network of the pod's, however wide.
func TestRedirectAliasInPodNetwork(t *testing.T) {
	t.Parallel()
	p := podtest.NewPod(t, podtest.BridgeDual)
	p.IP(t, "route add 10.0.0.0/8 via 10.22.0.1 dev eth0")
	p.In(t, func() error {
		_, err := prepare.ApplyOne(t.Context(), t.TempDir(), prepare.Options{Datapath: "redirect", VMAlias: netip.MustParseAddr("10.99.0.2")}, "eth0")
		if err == nil || !strings.Contains(err.Error(), "is in a network of the pod's") {
			t.Errorf("the alias 10.99.0.2: %v", err)
		}
		return nil
	})
}

// An alias is chosen where no other link of the pod has an address, a route or a permanent
// neighbor: of a DNS cache on lo, of another CNI's link. It is so each time.
func TestRedirectAliasBesideOtherLinks(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(four, six guest.Alias) []string{
		"address": func(four, six guest.Alias) []string {
			return []string{"addr add " + netip.PrefixFrom(four.Pod, 30).Masked().String() + " dev lo", "addr add " + six.Pod.String() + "/64 dev lo"}
		},
		"route": func(four, six guest.Alias) []string {
			return []string{"route add " + four.VM.String() + " dev other", "route add " + six.VM.String() + " dev other"}
		},
		"neighbor": func(four, six guest.Alias) []string {
			return []string{
				"neigh add " + four.VM.String() + " lladdr 02:00:00:00:00:09 dev other nud permanent",
				"neigh add " + six.Pod.String() + " lladdr 02:00:00:00:00:09 dev other nud permanent",
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := podtest.NewPod(t, podtest.BridgeDual)
			p.IP(t, "link add other type veth peer name peer", "link set other up", "link set peer up")
			if err := podtest.WaitSettled(t.Context(), p.NS); err != nil {
				t.Fatal(err)
			}
			prepared := func(dir string) (n guest.NIC) {
				p.In(t, func() error {
					plan, err := prepare.ApplyOne(t.Context(), dir, prepare.Options{Datapath: "redirect"}, "eth0")
					if err == nil {
						n = plan.NIC()
					}
					return err
				})
				return n
			}
			dir := t.TempDir()
			first := prepared(dir).Aliases
			p.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
			p.IP(t, change(first[0], first[1])...)
			before := podtest.TakeSnapshot(t, p.NS)
			second := prepared(dir).Aliases
			if len(second) != 2 || second[0] == first[0] || second[1] == first[1] {
				t.Errorf("%v, then %v", first, second)
			}
			if third := prepared(dir).Aliases; !slices.Equal(second, third) {
				t.Errorf("%v, and prepared again %v", second, third)
			}
			p.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, p.NS)); d != "" {
				t.Errorf("it is not put back:\n%s", d)
			}
		})
	}
}
