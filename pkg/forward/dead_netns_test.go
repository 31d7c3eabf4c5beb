package forward

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Of a VM that is dead nothing stays open for long once the client has ended.
func TestForwardDeadVM(t *testing.T) {
	t.Parallel()
	pod, vm := podtest.New(t), podtest.New(t)
	pod.IP(t, "link set lo up", "link add eth0 type veth peer name eth0 netns "+vm.Path(), "link set eth0 up", "addr add 192.0.2.1/24 dev eth0")
	vm.IP(t, "link set eth0 up", "addr add 192.0.2.2/24 dev eth0")
	l := vm.Listen(t, "192.0.2.2:80")
	var f *Forwarder
	pod.In(t, func() (err error) {
		f, err = Listen(t.Context(), nil, netip.MustParseAddr("192.0.2.2"), []Port{{Loopback: 80, VM: 80}}, pod.Do)
		return err
	})
	if f.giveUp != giveUp {
		t.Errorf("it gives up after %s", f.giveUp)
	}
	f.giveUp = 2 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var client net.Conn
	pod.In(t, func() (err error) {
		client, err = net.Dial("tcp", "127.0.0.1:80")
		return err
	})
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	connections := func() string { return pod.Run(t, "ss", "-Htn") }
	if open := pod.Run(t, "ss", "-Htno", "dst", "192.0.2.2"); !strings.Contains(open, "timer:(keepalive") {
		t.Errorf("a VM that ends while nothing is sent is not noticed:\n%s", open)
	}
	vm.Run(t, "nft", "add table ip dead ; add chain ip dead input { type filter hook input priority 0 ; policy drop ; }")
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the kernel tells nobody
		open := connections()
		if open == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still open:\n%s", open)
		}
	}
}
