package prepare_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// What the guard lets pass in any case is sent on before the bridge, which passes on
// nothing here; all else waits for it.
func TestGuardPassesMostBeforeTheBridge(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	dir := t.TempDir()
	var plan prepare.Plan
	pod.In(t, func() (err error) {
		plan, err = prepare.ApplyOne(t.Context(), dir, prepare.Options{}, pod.Interface)
		return err
	})
	tap, err := podtest.OpenTap(pod.NS, plan.NIC().Tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	// The bridge enables a port when it notices the carrier.
	if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
		t.Fatal(err)
	}
	pod.Run(t, "bridge", "link", "set", "dev", plan.NIC().Tap, "state", "0")

	leaving := podtest.StartCapture(t, pod.NS, "up-eth0", "udp or icmp")
	other := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	send := func(from net.HardwareAddr, ip netip.Addr, port uint16) {
		t.Helper()
		frame := podtest.UDPFrame(from, other, netip.AddrPortFrom(ip, port), netip.AddrPortFrom(pod.Gateway, 9), []byte("message"))
		if _, err := tap.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	mac, ip := net.HardwareAddr(pod.MAC), pod.IPv4.Addr()
	send(mac, ip, 40001)
	send(other, ip, 40002)
	send(mac, pod.Gateway, 40003)
	send(mac, ip, 67)
	if _, err := tap.Write(podtest.EchoFrame(mac, other, ip, pod.Gateway)); err != nil {
		t.Fatal(err)
	}
	send(mac, ip, 40004)
	leaving.Wait(".40004 >")
	seen := strings.Join(leaving.Stop(), "\n")
	for text, want := range map[string]bool{".40001 >": true, ".40002 >": false, ".40003 >": false, ".67 >": false, "ICMP": false} {
		if strings.Contains(seen, text) != want {
			t.Errorf("%q left: %v, want %v:\n%s", text, !want, want, seen)
		}
	}

	pod.Node.Run(t, "ip", "neigh", "replace", ip.String(), "lladdr", mac.String(), "dev", "cni0")
	pod.Node.Run(t, "bash", "-c", fmt.Sprintf("echo message > /dev/udp/%s/40005", ip))
	if err := tap.SetReadDeadline(time.Now().Add(podtest.Patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		n, err := tap.Read(buf)
		if err != nil {
			t.Fatalf("the guest gets nothing: %v", err)
		}
		if n > 42 && buf[23] == 17 && buf[36] == 40005>>8 && buf[37] == 40005&0xff {
			return
		}
	}
}
