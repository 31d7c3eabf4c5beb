package discover_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

func readPod(ctx context.Context, t *testing.T, ns *podtest.NS, o discover.Options) (pod discover.Pod, err error) {
	t.Helper()
	if e := ns.Do(func() error {
		pod, err = discover.ReadPod(ctx, o)
		return nil
	}); e != nil {
		t.Fatal(e)
	}
	return pod, err
}

// What is read is what ip(8) says, on pods of every shape.
func TestReadPodAgreesWithIP(t *testing.T) {
	t.Parallel()
	for _, shape := range podtest.Shapes() {
		if shape == podtest.L2 {
			continue // has no address to wait for
		}
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, shape)
			if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
				t.Fatal(err)
			}
			got, err := readPod(t.Context(), t, pod.NS, discover.Options{})
			if err != nil {
				t.Fatal(err)
			}
			in := got.Interfaces[0]
			if in.Name != "eth0" || in.Kind != "veth" || in.MAC.String() != pod.MAC.String() || in.MTU != pod.MTU || !in.Up || !in.Carrier || !in.ARP || !in.Ethernet {
				t.Errorf("got %+v", in)
			}
			if ip, _ := in.IPv4(); ip != pod.IPv4 {
				t.Errorf("IPv4 address %s, want %s", ip, pod.IPv4)
			}
			if d := cmp.Diff(routesByIP(t, pod.NS), routesOf(in)); d != "" {
				t.Errorf("routes (-ip +ours):\n%s", d)
			}
			neighbors := pod.Run(t, "ip", "neigh", "show", "nud", "permanent", "dev", "eth0")
			if want := strings.Count(neighbors, "PERMANENT"); len(in.Neighbors) != want {
				t.Errorf("neighbours %v, ip says:\n%s", in.Neighbors, neighbors)
			}
		})
	}
}

// route is what both sides say of a route.
type route struct {
	Dst, Gateway, Prefsrc, Scope string
	Metric, MTU                  int
}

func routesOf(in discover.Interface) []route {
	var out []route
	for _, r := range in.Routes {
		dst := r.Destination.String()
		if r.Destination.Bits() == 0 {
			dst = "default"
		} else if r.Destination.IsSingleIP() {
			dst = r.Destination.Addr().String()
		}
		o := route{Dst: dst, Scope: r.Scope.String(), Metric: r.Metric, MTU: r.MTU}
		if r.Gateway.IsValid() {
			o.Gateway = r.Gateway.String()
		}
		if r.Source.IsValid() {
			o.Prefsrc = r.Source.String()
		}
		out = append(out, o)
	}
	return out
}

func routesByIP(t *testing.T, ns *podtest.NS) []route {
	t.Helper()
	var out []route
	for _, family := range []string{"-4", "-6"} {
		var routes []struct {
			Dst, Gateway, Prefsrc, Scope string
			Metric                       int
			Metrics                      []struct{ MTU int }
		}
		text := ns.Run(t, "ip", "-j", "-d", family, "route", "show", "dev", "eth0")
		if err := json.Unmarshal([]byte(text), &routes); err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			o := route{Dst: r.Dst, Gateway: r.Gateway, Prefsrc: r.Prefsrc, Scope: r.Scope, Metric: r.Metric}
			for _, m := range r.Metrics {
				o.MTU += m.MTU
			}
			out = append(out, o)
		}
	}
	return out
}

// It waits for the CNI by the kernel's events.
func TestReadPodWaits(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	read := make(chan error, 1)
	var got discover.Pod
	waiting := make(chan struct{})
	go func() {
		var err error
		read <- errors.Join(ns.Do(func() error {
			close(waiting)
			got, err = discover.ReadPod(t.Context(), discover.Options{Interfaces: []string{"eth0"}})
			return err
		}))
	}()
	<-waiting
	ns.IP(t, "link add eth0 type veth peer name peer", "link set peer up", "link set eth0 up",
		"addr add 10.9.0.7/24 dev eth0", "route add default via 10.9.0.1")
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if in := got.Interfaces[0]; len(in.Routes) < 2 || in.Routes[0].Gateway != netip.MustParseAddr("10.9.0.1") {
		t.Errorf("the route that came after the address is not in %+v", in.Routes)
	}
}

func TestReadPodSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link add idle0 type veth peer name bare0", "link set bare0 up")
	for name, want := range map[string]string{
		"eth7":  "there is no interface eth7 (there are: lo, bare0, idle0)",
		"idle0": "interface idle0 is down",
		"bare0": "interface bare0 has no address",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := readPod(ctx, t, ns, discover.Options{Interfaces: []string{name}})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			incomplete := (*discover.IncompleteError)(nil)
			if !errors.As(err, &incomplete) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %#v", err)
			}
		})
	}
}

func TestDefaultInterface(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link add net1 type veth peer name peer netns "+podtest.New(t).Path(), "link set net1 up", "addr add 10.9.0.7/24 dev net1")
	check := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		pod, err := readPod(ctx, t, ns, discover.Options{})
		switch {
		case want == "" && err == nil:
			t.Errorf("got %s, want none", pod.Interfaces[0].Name)
		case want != "" && err != nil:
			t.Error(err)
		case want != "" && pod.Interfaces[0].Name != want:
			t.Errorf("got %s, want %s", pod.Interfaces[0].Name, want)
		}
	}
	check("net1") // the only one
	ns.IP(t, "link add net2 type veth peer name net3", "link set net2 up", "link set net3 up")
	check("") // several, no default route, no eth0
	ns.IP(t, "route add default via 10.9.0.1 metric 100")
	check("net1") // that of the default route
	ns.IP(t, "addr add 10.8.0.7/24 dev net2", "route add default via 10.8.0.1 metric 50")
	check("net2") // that of the better one
}

// Of several IPv6 addresses the pod's is the one that its CNI added first.
func TestSeveralIPv6Addresses(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link add eth0 type veth peer name peer", "link set peer up", "link set eth0 up")
	for _, c := range []struct{ add, want string }{
		{"fd00::6/64 dev eth0 nodad preferred_lft 0", "fd00::6/64"}, // deprecated, but the pod's
		{"2001:db8:1::7/64 dev eth0 nodad valid_lft 600 preferred_lft 300", "2001:db8:1::7/64"},
		{"fd00::7/64 dev eth0 nodad", "fd00::7/64"},
		{"2001:db8::7/64 dev eth0 nodad", "fd00::7/64"},
		{"2001:db8:2::7/64 dev eth0 nodad valid_lft 600 preferred_lft 300", "fd00::7/64"},
		{"fd00::8/64 dev eth0 nodad preferred_lft 0", "fd00::7/64"},
	} {
		ns.IP(t, "addr add "+c.add)
		pod, err := readPod(t.Context(), t, ns, discover.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := pod.Interfaces[0].IPv6(); !ok || got.String() != c.want {
			t.Errorf("with %s: got %s, want %s", c.add, got, c.want)
		}
	}
}

// A route by several gateways is one by the first, not one to the link.
func TestRouteBySeveralGateways(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link add eth0 type veth peer name peer", "link set peer up", "link set eth0 up",
		"addr add 10.9.0.7/24 dev eth0", "addr add fd00::7/64 dev eth0 nodad",
		"neigh add fd00::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
		"route add default nexthop via 10.9.0.1 nexthop via 10.9.0.2",
		"route add default nexthop via fd00::1 dev eth0 nexthop via fd00::2 dev eth0")
	pod, err := readPod(t.Context(), t, ns, discover.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := pod.Interfaces[0]
	if g := in.Gateway6; g == nil || g.Address.String() != "fd00::1" || g.MAC.String() != "02:00:00:00:00:01" {
		t.Errorf("the IPv6 gateway is %+v", g)
	}
	var gateways []string
	for _, r := range in.Routes {
		if r.Destination.Bits() == 0 {
			gateways = append(gateways, r.Gateway.String())
		}
	}
	if d := cmp.Diff([]string{"10.9.0.1", "fd00::1"}, gateways); d != "" {
		t.Errorf("default routes (-want +got):\n%s", d)
	}
}

// The IPv6 gateway is that of the widest route, by its best: not every network
// has a default route.
func TestIPv6Gateway(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link add eth0 type veth peer name peer", "link set peer up", "link set eth0 up", "addr add fd00::7/64 dev eth0 nodad")
	for i, c := range []struct{ add, want string }{
		{"fd10::/48 via fd00::1", "fd00::1"},
		{"fd20::/32 via fd00::2", "fd00::2"},
		{"default via fd00::3 table 100", "fd00::2"},
		{"default via fd00::4 metric 2000", "fd00::4"},
		{"default via fd00::5 metric 1000", "fd00::5"},
	} {
		ns.IP(t, fmt.Sprintf("neigh add fd00::%d lladdr 02:00:00:00:00:0%d dev eth0 nud permanent", i+1, i+1), "route add "+c.add)
		pod, err := readPod(t.Context(), t, ns, discover.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if g := pod.Interfaces[0].Gateway6; g == nil || g.Address.String() != c.want {
			t.Errorf("with %s: got %+v, want %s", c.add, g, c.want)
		}
	}
}

// A gateway is looked for on its route's link, though another has the same network.
func TestIPv6GatewayOnItsLink(t *testing.T) {
	t.Parallel()
	ns, node := podtest.New(t), podtest.New(t)
	ns.IP(t, "link add eth0 type veth peer name peer0 netns "+node.Path(), "link set eth0 up", "addr add fd00::7/64 dev eth0 nodad",
		"link add net1 type veth peer name peer1 netns "+node.Path(), "link set net1 up", "addr add fd00::8/64 dev net1 nodad",
		"route add fd20::/16 via fd00::99 dev net1")
	node.IP(t, "link set peer0 up", "link set peer1 up", "addr add fd00::99/64 dev peer1 nodad")
	pod, err := readPod(t.Context(), t, ns, discover.Options{Interfaces: []string{"eth0", "net1"}})
	if err != nil {
		t.Fatal(err)
	}
	if g := pod.Interfaces[1].Gateway6; g == nil || g.Address.String() != "fd00::99" {
		t.Errorf("the gateway of net1 is %+v", g)
	}
}

// A resolv.conf that is not there costs the VM its DNS, not its start, unless
// it was asked for.
func TestReadPodWithoutResolvConf(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if _, err := readPod(t.Context(), t, pod.NS, discover.Options{ResolvConf: path}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, []byte("nameserver 10.96.0.10\nbogus\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readPod(t.Context(), t, pod.NS, discover.Options{ResolvConf: path})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.DNS.Servers) != 1 || len(got.DNS.LeftOut) != 1 || got.DNS.Unknown != "" {
		t.Errorf("got %+v", got)
	}
}
