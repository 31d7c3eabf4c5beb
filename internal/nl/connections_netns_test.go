package nl

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Connected sockets of each kind are found, one of IPv6 that has a peer of IPv4 too; those
// that only listen are none.
func TestConnections(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link set lo up")
	read := func() (all []Connection) {
		ns.In(t, func() (err error) {
			all, err = Connections()
			return err
		})
		return all
	}
	if all := read(); len(all) > 0 {
		t.Errorf("a namespace without sockets has %v", all)
	}
	tcp4, tcp6 := ns.Listen(t, "127.0.0.1:80"), ns.Listen(t, "[::1]:80")
	var want []Connection
	ns.In(t, func() error {
		for _, to := range []net.Listener{tcp4, tcp6} {
			conn, err := net.Dial("tcp", to.Addr().String())
			if err != nil {
				return err
			}
			t.Cleanup(func() { conn.Close() })
			want = append(want, Connection{Protocol: unix.IPPROTO_TCP, Local: at(conn.LocalAddr()), Remote: at(conn.RemoteAddr())})
		}
		for _, to := range []string{"127.0.0.1:53", "[::1]:53"} {
			conn, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			t.Cleanup(func() { conn.Close() })
			want = append(want, Connection{Protocol: unix.IPPROTO_UDP, Local: at(conn.LocalAddr()), Remote: at(conn.RemoteAddr())})
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		mapped := unix.SockaddrInet6{Port: 80, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
		if err := unix.Connect(fd, &mapped); err != nil {
			return err
		}
		own, err := unix.Getsockname(fd)
		want = append(want, Connection{
			Protocol: unix.IPPROTO_TCP, Remote: at(tcp4.Addr()),
			Local: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(own.(*unix.SockaddrInet6).Port)),
		})
		return err
	})
	all := read()
	for _, c := range want {
		if !slices.Contains(all, c) {
			t.Errorf("%v is not among %v", c, all)
		}
	}
	for _, c := range all {
		if c.Remote.Port() != 80 && c.Local.Port() != 80 && c.Remote.Port() != 53 {
			t.Errorf("%v is no connection of these", c)
		}
	}
}

func at(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }
