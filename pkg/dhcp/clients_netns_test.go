package dhcp

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// Real DHCP clients judge the server. They sit at one end of a veth pair, the
// server listens on the other; what they write to /etc and /var goes to a mount
// namespace of their own.

// newVeth makes the pair with the guest's address at the client's end. Both
// are in the test's namespace: client and server use packet sockets, and the
// client's kernel knows the server identifier's link address, so that unicast
// arrives too.
func newVeth(t *testing.T, l Lease) (serverEnd, clientEnd string) {
	t.Helper()
	newNetns(t)
	ip(t, "link add host type veth peer name guest address "+guestMAC.String())
	ip(t, "link set host up")
	ip(t, "link set guest up")
	ip(t, fmt.Sprintf("neigh add %v lladdr ee:ee:ee:ee:ee:ee dev guest", l.Server))
	return "host", "guest"
}

// output collects what a client says.
type output struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // something was added
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// startClient runs a client until the test ends. Its /etc/resolv.conf is a copy
// at the path returned.
func startClient(t *testing.T, command ...string) (*exec.Cmd, *output, string) {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		missing(t, "find client: %v", err)
	}
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const script = `set -e
mount --bind "$0" "$(readlink -f /etc/resolv.conf)"
[ ! -d /var/lib/dhcp ] || mount -t tmpfs none /var/lib/dhcp
mount -t tmpfs none /run
exec "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, resolv}, command...)...)
	out := &output{more: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		missing(t, "start client: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", command[0], out)
		}
	})
	return cmd, out, resolv
}

// udhcpcScript applies the address and prints what the client read.
const udhcpcScript = `#!/bin/sh
case "$1" in
deconfig) ip addr flush dev $interface ;;
bound|renew)
	ip addr replace $ip/$mask dev $interface
	echo "$1 ip=$ip/$mask router=$router routes=$staticroutes dns=$dns domain=$domain search=$search mtu=$mtu hostname=$hostname server=$serverid lease=$lease." ;;
nak) echo "nak $message." ;;
esac
`

func TestUdhcpc(t *testing.T) {
	for _, c := range []struct {
		name  string
		lease Lease
		want  string
	}{
		{"flannel", testLease(), "ip=10.244.1.7/24 router= routes=10.244.0.0/16 10.244.1.1 0.0.0.0/0 10.244.1.1 dns=10.96.0.10 " +
			"domain=default.svc.cluster.local search=default.svc.cluster.local svc.cluster.local cluster.local mtu=1450 hostname=vm-a server=10.244.1.1"},
		{"calico", calicoLease(), "ip=10.244.1.7/32 router= routes=169.254.1.1/32 0.0.0.0 0.0.0.0/0 169.254.1.1 dns=10.96.0.10 " +
			"domain=default.svc.cluster.local search=default.svc.cluster.local svc.cluster.local cluster.local mtu=1450 hostname=vm-a server=169.254.1.1 lease=3600."},
	} {
		t.Run(c.name, func(t *testing.T) {
			hostEnd, guestEnd := newVeth(t, c.lease)
			s := serveOn(t, hostEnd, c.lease)
			script := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(script, []byte(udhcpcScript), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd, out, _ := startClient(t, "udhcpc", "-f", "-i", guestEnd, "-s", script,
				"-O", "mtu", "-O", "search", "-O", "staticroutes", "-x", "hostname:guest-says", "-V", "test class")
			status := await(t, s, "bound", is(lease.Bound))
			if status.Client.VendorClass != "test class" || status.Client.Hostname != "guest-says" || status.Client.ID == "" {
				t.Errorf("client is %+v", status.Client)
			}
			// USR1 renews: unicast, through the kernel, which leaves the checksum to hardware.
			waitOutput(t, out, "bound "+c.want)
			ip(t, fmt.Sprintf("route replace %v dev guest", c.lease.Server))
			if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			await(t, s, "renewed", func(s lease.Status) bool { return s.Sent["ACK"] >= 2 })
			waitOutput(t, out, "renew "+c.want)
			if err := cmd.Process.Signal(unix.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			status = await(t, s, "released", func(s lease.Status) bool { return s.Received["RELEASE"] == 1 && s.State == lease.None })
			if len(status.Dropped) != 0 || status.Sent["NAK"] != 0 {
				t.Errorf("dropped %v, sent %v", status.Dropped, status.Sent)
			}
		})
	}
}

// waitOutput waits until a client has said something.
func waitOutput(t *testing.T, out *output, want string) {
	t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(out.String(), want) {
		select {
		case <-out.more:
		case <-timeout:
			t.Fatalf("the client does not say %q", want)
		}
	}
}

// TestDhclient runs ISC's client with Debian's own script, and looks at what
// the kernel and resolv.conf hold in the end.
func TestDhclient(t *testing.T) {
	for _, c := range []struct {
		name   string
		lease  Lease
		addr   string
		routes []string
	}{
		{"flannel", testLease(), "inet 10.244.1.7/24", []string{"default via 10.244.1.1 dev guest", "10.244.0.0/16 via 10.244.1.1 dev guest"}},
		{"calico", calicoLease(), "inet 10.244.1.7/32", []string{"default via 169.254.1.1 dev guest", "169.254.1.1 dev guest scope link"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			hostEnd, guestEnd := newVeth(t, c.lease)
			s := serveOn(t, hostEnd, c.lease)
			dir := t.TempDir()
			_, out, resolv := startClient(t, "dhclient", "-4", "-d", "-v",
				"-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), guestEnd)
			await(t, s, "bound", is(lease.Bound))
			waitOutput(t, out, "bound to 10.244.1.7")
			if got := ip(t, "-4 addr show dev guest"); !strings.Contains(got, c.addr) || !strings.Contains(got, "mtu 1450") {
				t.Errorf("interface is %s", got)
			}
			got := ip(t, "-4 route show")
			for _, route := range c.routes {
				if !strings.Contains(got, route) {
					t.Errorf("route %q is not in\n%s", route, got)
				}
			}
			b, err := os.ReadFile(resolv)
			if err != nil {
				t.Fatal(err)
			}
			if conf := string(b); !strings.Contains(conf, "nameserver 10.96.0.10") || !strings.Contains(conf, "search default.svc.cluster.local. svc.cluster.local. cluster.local.") {
				t.Errorf("resolv.conf is %q", conf)
			}
		})
	}
}

// TestDhclientStale: a client that remembers an address of another life gets
// the right one at once.
func TestDhclientStale(t *testing.T) {
	l := testLease()
	hostEnd, guestEnd := newVeth(t, l)
	s := serveOn(t, hostEnd, l)
	dir := t.TempDir()
	leases := filepath.Join(dir, "leases")
	const old = `lease {
  interface "guest";
  fixed-address 10.9.9.9;
  option subnet-mask 255.255.255.0;
  option dhcp-server-identifier 10.9.9.1;
  option dhcp-lease-time 4294967295;
  option dhcp-message-type 5;
  renew 5 2035/01/01 00:00:00;
  rebind 5 2035/01/01 00:00:00;
  expire 5 2035/01/01 00:00:00;
}
`
	if err := os.WriteFile(leases, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	startClient(t, "dhclient", "-4", "-d", "-v", "-lf", leases, "-pf", filepath.Join(dir, "pid"), guestEnd)
	status := await(t, s, "bound", is(lease.Bound))
	if status.Sent["NAK"] != 1 || status.Address != netip.MustParsePrefix("10.244.1.7/24") {
		t.Errorf("sent %v", status.Sent)
	}
}
