package forward_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/forward"
)

func TestParsePorts(t *testing.T) {
	t.Parallel()
	ports, err := forward.ParsePorts("22,8080:80")
	if err != nil || len(ports) != 2 || ports[0] != (forward.Port{Loopback: 22, VM: 22}) || ports[1] != (forward.Port{Loopback: 8080, VM: 80}) {
		t.Errorf("%v, %v", ports, err)
	}
	for text, says := range map[string]string{
		"": "want ports", "0": "want ports", "65536": "want ports", "22,": "want ports", "22:": `"22:"`, "1:2:3": "want ports",
		"ssh": `"ssh"`, "22,22:80": "port 22 is forwarded twice", "-1": "want ports",
	} {
		if _, err := forward.ParsePorts(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want an error that has %q", text, err, says)
		}
	}
}

// vm is a listener in the VM's place, and the port of the loopback that leads to it.
func vm(t *testing.T, log *slog.Logger) (l *net.TCPListener, port uint16, end func()) {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	var f *forward.Forwarder
	for f == nil {
		// Not one that the kernel gives: another process may get it as soon as it is free.
		port = 20000 + rand.N[uint16](12000)
		f, err = forward.Listen(t.Context(), log, to.Addr(), []forward.Port{{Loopback: port, VM: to.Port()}}, nil)
		if err != nil && !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx) }()
	end = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return l, port, end
}

func dial(t *testing.T, host string, port uint16) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(podtest.Patience)) // bounds a failure
	return c.(*net.TCPConn)
}

// Each side may end what it sends while the other goes on; the end of the forwarder
// ends what is open.
func TestForward(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, port, end := vm(t, nil)
		defer l.Close()
		client := dial(t, host, port)
		server, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		go func() {
			_, _ = client.Write(sent)
			_ = client.CloseWrite()
		}()
		if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: the VM got %d bytes of %d, %v", host, len(got), len(sent), err)
		}
		if _, err := server.Write([]byte("and back")); err != nil {
			t.Error(err)
		}
		got := make([]byte, 8)
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "and back" {
			t.Errorf("%s: the client got %q, %v", host, got, err)
		}
		end()
		if n, err := client.Read(got); err == nil {
			t.Errorf("%s: the client still got %d bytes", host, n)
		}
		// A process that is being started has the socket for a moment longer.
		for start := time.Now(); ; {
			c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
			if err != nil {
				break
			}
			c.Close()
			if time.Since(start) > podtest.Patience {
				t.Fatalf("%s: something still listens", host)
			}
		}
	}
}

// A port on which the VM does not listen, and a VM that resets.
func TestForwardRefused(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	l, port, end := vm(t, slog.New(slog.NewTextHandler(&log, nil)))
	client := dial(t, "127.0.0.1", port)
	server, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.SetLinger(0)
	server.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the VM reset, the client got %v", err)
	}
	l.Close()
	refused, err := net.Dial("tcp", client.RemoteAddr().String())
	if err == nil { // the reset may be there as soon as the connection is
		_, err = refused.Read(make([]byte, 1))
		refused.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the VM refused, the client got %v", err)
	}
	for range 100 {
		again, err := net.Dial("tcp", client.RemoteAddr().String())
		if err == nil {
			_, _ = again.Read(make([]byte, 1))
			again.Close()
		}
	}
	end()
	if lines := strings.Count(log.String(), "connection refused"); lines == 0 || lines > 50 {
		t.Errorf("the log says it %d times:\n%s", lines, &log)
	}
}

// Without an address of the VM nothing listens: the first connection would end the process.
func TestListenForNobody(t *testing.T) {
	t.Parallel()
	if f, err := forward.Listen(t.Context(), nil, netip.Addr{}, []forward.Port{{VM: 1}}, nil); f != nil || err == nil {
		t.Errorf("%v, %v", f, err)
	}
}

// A port that is taken is named, and no other is listened on.
func TestListenTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).AddrPort().Port()
	if _, err := forward.Listen(t.Context(), nil, netip.MustParseAddr("127.0.0.1"), []forward.Port{{Loopback: port, VM: 1}}, nil); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), strconv.Itoa(int(port))) || !strings.Contains(err.Error(), "as in PORT:1") {
		t.Errorf("%v", err)
	}
}
