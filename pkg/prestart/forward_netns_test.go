package prestart_test

import (
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/forward"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A connection to the pod's loopback gets to the VM, from whatever namespace the session
// is held; it ends with the session. Where the VM has no address in the pod, it is said
// before anything is changed.
func TestForwards(t *testing.T) {
	t.Run("named", func(t *testing.T) {
		t.Parallel()
		testForwards(t, func(*prestart.Hook) {})
	})
	t.Run("of a thread", func(t *testing.T) {
		t.Parallel()
		testForwards(t, func(h *prestart.Hook) { h.Netns = "" })
	})
}

func testForwards(t *testing.T, change func(*prestart.Hook)) {
	pod := podtest.NewPod(t, podtest.Calico)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	change(&h)
	h.Forwards, h.Network.Datapath = []forward.Port{{Loopback: 8022, VM: 22}}, podtest.SwitchPath
	pod.In(t, func() error {
		if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "datapath redirect") {
			t.Errorf("with the bridge: %v", err)
		}
		return nil
	})
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("the refusal changed:\n%s", d)
	}

	h.Network = prepare.Options{Datapath: redirect}
	var session *prestart.Session
	pod.In(t, func() error {
		session = run(t, h)
		return nil
	})
	guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	guest.In(t, func() (err error) {
		l, err = net.Listen("tcp4", ":22")
		return err
	})
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello from the VM, "+strconv.Itoa(c.LocalAddr().(*net.TCPAddr).Port)+"\n")
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	var c net.Conn
	pod.In(t, func() (err error) {
		c, err = net.DialTimeout("tcp", "127.0.0.1:8022", podtest.Patience)
		return err
	})
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(podtest.Patience)) // bounds a failure
	buf := make([]byte, 64)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello from the VM, 22\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := c.Read(buf); err == nil {
		t.Errorf("after the end: %q", buf[:n])
	}
}
