package vm

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

// routerLifetime is how long an advertisement lets a router be a default one.
// Its route ::/0 (RFC 4191) has no end, nor have the addresses.
const routerLifetime = 65535 * time.Second

const (
	outsidePage = "hello from outside\n"
	guestPage   = "hello from the guest\n" // see test/guest/build.sh
)

// host is a NIC of the guest, in a network namespace of its own there, at the
// tap of a pod.
type host struct {
	guest   *hastyGuest
	nic     string
	rfc4191 bool // it knows of routes in advertisements
	pod     *podtest.Pod
	program *launchtest.Program
}

// TestLifetimes: hosts keep what the program gave them, and can use it, for as
// long as it said, though it was killed at once. Those that know RFC 4191 keep
// their default route beyond the router's lifetime.
func TestLifetimes(t *testing.T) {
	var hosts []*host
	var pods []*podtest.Pod
	for _, shape := range []podtest.Shape{podtest.CalicoDual, podtest.KindnetDual} {
		for _, rfc4191 := range []bool{true, false} {
			h := &host{nic: fmt.Sprintf("eth%d", len(hosts)), rfc4191: rfc4191, pod: podtest.NewPod(t, shape)}
			h.renumberNode(t)
			h.program = launchtest.NewProgram(t, h.pod)
			h.program.Serve(t, "--no-check")
			h.serveOutside(t)
			hosts, pods = append(hosts, h), append(pods, h.pod)
		}
	}
	each := func(when string, check func(*host, *testing.T)) {
		for _, h := range hosts {
			t.Run(fmt.Sprintf("%s/%s,rfc4191=%v", when, h.pod.Shape, h.rfc4191), func(t *testing.T) { check(h, t) })
		}
		if t.Failed() {
			t.FailNow()
		}
	}

	guest := bootHasty(t, pods)
	booted := guest.uptime(t)
	join(t, guest, hosts)
	each("served", (*host).hasAll)
	for _, h := range hosts {
		_ = h.program.Stop(syscall.SIGKILL)
	}
	killed := guest.uptime(t)

	// The last advertisement came in between.
	guest.pass(t, booted+routerLifetime-time.Minute)
	each("before the router's end", (*host).hasAll)
	guest.pass(t, killed+routerLifetime+time.Minute)
	each("after the router's end", func(h *host, t *testing.T) {
		if h.rfc4191 {
			h.hasAll(t)
		} else {
			h.hasNoRouter(t)
		}
	})
}

// renumberNode gives the node another link-local address, where the guest is
// told of one that is made of the gateway's MAC. Else the node had that itself,
// and answered for it as the pod's kernel does.
func (h *host) renumberNode(t *testing.T) {
	t.Helper()
	if link := h.pod.NodeLink; !h.pod.IPv6Gateway.IsLinkLocalUnicast() {
		h.pod.Node.IP(t, "link set "+link+" addrgenmode none", "address flush dev "+link+" scope link", "address add fe80::1/64 dev "+link)
	}
}

// serveOutside serves a page beyond the pod's node.
func (h *host) serveOutside(t *testing.T) {
	t.Helper()
	listener := h.pod.Outside.Listen(t, ":80")
	page := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, outsidePage) }
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = http.Serve(listener, http.HandlerFunc(page)) // until the listener is closed
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-served
	})
}

// join has all hosts ask for their addresses at once, by a client that stays.
// Router advertisements are left to the kernel.
func join(t *testing.T, guest *hastyGuest, hosts []*host) {
	t.Helper()
	var ask strings.Builder
	for _, h := range hosts {
		h.guest = guest
		guest.run(t, fmt.Sprintf(`>/run/%[1]s; unshare --net=/run/%[1]s sh -c "nsenter -t 1 -n ip link set %[1]s netns \$\$; ip link set lo up; httpd -h /www"`, h.nic))
		if !h.rfc4191 { // as if (Documentation/networking/ip-sysctl.rst)
			h.run(t, "sh -c 'echo 0 >/proc/sys/net/ipv6/conf/"+h.nic+"/accept_ra_rtr_pref'")
		}
		fmt.Fprintf(&ask, `nsenter --net=/run/%[1]s dhcpcd --config /dev/null --script /bin/true --noarp --waitip=4 --waitip=6 --noipv6rs --ia_na %[1]s & asking="$asking $!"; `, h.nic)
	}
	guest.run(t, ask.String()+"wait $asking")
	for _, h := range hosts {
		h.run(t, "sh -c 'until ip -6 route list | grep -q default; do :; done'")
	}
}

// run has the guest run a command in the host's namespace.
func (h *host) run(t *testing.T, command string) string {
	t.Helper()
	return h.guest.run(t, "nsenter --net=/run/"+h.nic+" "+command)
}

// hasAll checks that the host has all it was given and finds others by it. Who
// knows of the route that has no end takes it for the default one.
func (h *host) hasAll(t *testing.T) {
	h.hasAddresses(t)
	h.reach(t, h.pod.IPv4.Addr(), podtest.OutsideIP)
	route := h.run(t, "ip -6 route list default")
	if ends := strings.Contains(route, "expires"); !strings.HasPrefix(route, "default via fe80::") || ends == h.rfc4191 {
		t.Errorf("its default route is %q", route)
	}
	h.reach(t, h.pod.IPv6.Addr(), podtest.OutsideIPv6)
}

// hasNoRouter checks that the host has all it was given but the IPv6 router.
func (h *host) hasNoRouter(t *testing.T) {
	h.hasAddresses(t)
	h.reach(t, h.pod.IPv4.Addr(), podtest.OutsideIP)
	out, failed := h.guest.try(t, "nsenter --net=/run/"+h.nic+" ping -c 1 -W 5 "+podtest.OutsideIPv6.String())
	if !failed || !strings.Contains(out, "Network is unreachable") {
		t.Errorf("it still has a router:\n%s", out)
	}
}

func (h *host) hasAddresses(t *testing.T) {
	t.Helper()
	addresses := strings.Join(strings.Fields(h.run(t, "ip address show dev "+h.nic+" scope global")), " ")
	for _, want := range []string{
		fmt.Sprintf("inet %[1]v/32 brd %[1]v scope global %[2]s valid_lft forever preferred_lft forever", h.pod.IPv4.Addr(), h.nic),
		fmt.Sprintf("inet6 %v/128 scope global noprefixroute valid_lft forever preferred_lft forever", h.pod.IPv6.Addr()),
	} {
		if !strings.Contains(addresses, want) {
			t.Errorf("it has no %s, but %s", want, addresses)
		}
	}
}

// reach checks that the host and one beyond the node find each other.
func (h *host) reach(t *testing.T, inside, outside netip.Addr) {
	t.Helper()
	url := func(address netip.Addr) string { return "http://" + netip.AddrPortFrom(address, 80).String() }
	h.forgetNeighbors(t)
	h.run(t, "ping -c 1 -W 5 "+outside.String())
	if page := h.run(t, "wget -q -O - "+url(outside)); page != outsidePage {
		t.Errorf("the page outside is %q", page)
	}
	h.forgetNeighbors(t)
	h.pod.Outside.Run(t, "ping", "-n", "-c", "1", "-W", "5", inside.String())
	if page := h.pod.Outside.Run(t, "curl", "-sS", "--globoff", "--max-time", "5", url(inside)); page != guestPage {
		t.Errorf("the guest's page is %q", page)
	}
}

// forgetNeighbors has the host and the node ask for each other's MAC anew.
func (h *host) forgetNeighbors(t *testing.T) {
	t.Helper()
	h.run(t, "ip neigh flush dev "+h.nic)
	h.pod.Node.Run(t, "ip", "neigh", "flush", "dev", h.pod.NodeLink)
}
