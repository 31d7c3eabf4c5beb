package prestart_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// By redirect the daemon of the CNI plugin dhcp renews the pod's lease while the VM has
// its address, the plugins find the interface as they made it, and take it back.
func TestDHCPDaemonRenews(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, plugin string
		server       func(*podtest.Pod) (*podtest.NS, string) // where the DHCP server is, and its link
	}{
		{"switch", podtest.SwitchPlugin + `"dhcp0"`, func(p *podtest.Pod) (*podtest.NS, string) {
			p.Node.IP(t, "link add dhcp0 "+podtest.Switch, "link set dhcp0 up")
			return p.Node, "dhcp0"
		}},
		{"macvlan", `"type": "macvlan", "master": "uplink0"`, func(p *podtest.Pod) (*podtest.NS, string) { return p.Outside, "eth0" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewBarePod(t)
			ns, link := c.server(pod)
			ns.IP(t, "addr add 10.88.0.1/24 dev "+link)
			dir := t.TempDir()
			const waits = 30 * time.Second
			server := serveDHCP(t, ns, link)
			socket := filepath.Join(dir, "dhcp.sock")
			plugins := podtest.Built(t, "cni")
			daemon := podtest.StartConsole(t, pod.Node.Command(t.Context(), filepath.Join(plugins, "dhcp"), "daemon", "-socketpath", socket, "-timeout", "2s"))
			waitSocket(t, socket)
			attachment, err := podtest.AddCNI(t.Context(), pod.Node, pod.NS, []byte(`{"cniVersion": "1.0.0", "name": "net", "plugins": [{`+c.plugin+
				`, "ipam": {"type": "dhcp", "daemonSocketPath": "`+socket+`"}}]}`), plugins, filepath.Join(dir, "cache"), "eth0")
			if err != nil {
				t.Fatalf("%v\nthe daemon:\n%s", err, daemon.Text())
			}
			daemon.WaitLine(t, waits, "lease acquired")
			address := attachment.Result.IPs[0].Address.IP.String()

			h := newHook(t, pod)
			h.Network.Datapath = redirect
			session := run(t, h)
			guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, session.Interfaces()[0].MAC.HardwareAddr())
			talks := func() {
				t.Helper()
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "10.88.0.1")
				ns.Run(t, "ping", "-c3", "-i0.2", "-W20", address)
			}
			if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != address {
				t.Fatalf("lease %v, error %v", lease, err)
			}
			talks()
			server.discard()
			renewed := strings.Count(daemon.Text(), "lease renewed")
			if m := server.next(t); m.MessageType() != dhcpv4.MessageTypeRequest || m.ClientIPAddr.String() != address {
				t.Errorf("the server is sent %v", m.Summary())
			}
			daemon.Wait(t, waits, "renewal", func(text string) bool { return strings.Count(text, "lease renewed") > renewed })
			if err := attachment.Check(t.Context()); err != nil {
				t.Error(err)
			}
			talks()
			// The release is sent from no address, so the kernel has no UDP socket hear it.
			wire := podtest.StartConsole(t, ns.Command(t.Context(), "tcpdump", "-lnvi", link, "udp dst port 67"))
			wire.WaitLine(t, waits, "listening on")
			if err := attachment.Delete(t.Context()); err != nil {
				t.Error(err)
			}
			if c.name != "macvlan" { // the plugin bridge deletes the interface before the daemon is told, which may see it
				daemon.Wait(t, waits, "end of the lease", func(text string) bool {
					return strings.Contains(text, "releasing lease") || strings.Contains(text, "terminating lease maintenance")
				})
				return
			}
			daemon.WaitLine(t, waits, "releasing lease")
			wire.WaitLine(t, waits, "DHCP-Message", "Release")
		})
	}
}

// dhcpServer has one lease, which is to be renewed after two seconds.
type dhcpServer struct{ seen chan *dhcpv4.DHCPv4 }

// serveDHCP serves DHCP on a link, until the test ends.
func serveDHCP(t *testing.T, ns *podtest.NS, link string) dhcpServer {
	t.Helper()
	d := dhcpServer{make(chan *dhcpv4.DHCPv4, 100)}
	var server *server4.Server
	ns.In(t, func() (err error) {
		server, err = server4.NewServer(link, nil, d.answer, server4.WithLogger(server4.EmptyLogger{}))
		return err
	})
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve() }() // it ends when it is closed
	return d
}

// answer answers as RFC 2131 has it: who has an address is answered there.
func (d dhcpServer) answer(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	kind := map[dhcpv4.MessageType]dhcpv4.MessageType{
		dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeRequest: dhcpv4.MessageTypeAck,
	}[m.MessageType()]
	if kind != dhcpv4.MessageTypeNone {
		own := net.IPv4(10, 88, 0, 1)
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 88, 0, 20)),
			dhcpv4.WithServerIP(own), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(own)), dhcpv4.WithRouter(own),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(60), dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(2*time.Second)))
		if err != nil {
			return
		}
		if !m.ClientIPAddr.IsUnspecified() {
			peer = &net.UDPAddr{IP: m.ClientIPAddr, Port: dhcpv4.ClientPort}
		}
		_, _ = conn.WriteTo(reply.ToBytes(), peer)
	}
	d.seen <- m
}

// next is what the server is sent next.
func (d dhcpServer) next(t *testing.T) *dhcpv4.DHCPv4 {
	t.Helper()
	select {
	case m := <-d.seen:
		return m
	case <-time.After(podtest.Patience):
		t.Fatal("the server is sent nothing")
		return nil
	}
}

// discard forgets what it was sent.
func (d dhcpServer) discard() {
	for len(d.seen) > 0 {
		<-d.seen
	}
}

// waitSocket waits until somebody listens at a socket.
func waitSocket(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(podtest.Patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
