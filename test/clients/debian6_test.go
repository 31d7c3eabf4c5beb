package clients

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// debianNIC6 is a NIC of which IPv6 is judged.
type debianNIC6 struct{ *debianNIC }

func (n debianNIC6) nic() string { return n.name }

func (n debianNIC6) do(t *testing.T, command ...string) string {
	t.Helper()
	return n.run(t, strings.Join(command, " "))
}

func (n debianNIC6) state(t *testing.T) state {
	t.Helper()
	s := kernelState6(t, n)
	n.resolver(t, &s)
	return s
}

// tcp has nc(1) in the guest connect, and listen.
func (n debianNIC6) tcp(t *testing.T, at *seat) {
	t.Helper()
	const port = 8000
	outside, inside := netip.AddrPortFrom(podtest.OutsideIPv6, port), netip.AddrPortFrom(at.pod.IPv6.Addr(), port)
	listener := at.pod.Outside.Listen(t, outside.String())
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			fmt.Fprintln(conn, "from outside")
			conn.Close()
		}
	}()
	if got := n.do(t, "nc", "-d", "-w", "5", outside.Addr().String(), fmt.Sprint(port)); got != "from outside\n" {
		t.Errorf("TCP from the guest: %q", got)
	}

	said := len(n.shell.Text())
	n.shell.Say(t, fmt.Sprintf("echo from the guest | nc -n -v -N -l %v %d 2>&1 &\n", inside.Addr(), port))
	n.shell.Wait(t, patience, "nc to listen", func(text string) bool { return strings.Contains(text[said:], "Listening on") })
	var got string
	err := at.pod.Outside.Do(func() error {
		conn, err := net.DialTimeout("tcp", inside.String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		got, err = bufio.NewReader(conn).ReadString('\n')
		return err
	})
	if err != nil || got != "from the guest\n" {
		t.Errorf("TCP to the guest: %q, %v", got, err)
	}
	n.do(t, "wait")
}
