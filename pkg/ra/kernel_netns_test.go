package ra

import (
	"bufio"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// TestKernel lets Linux itself take what is advertised.
func TestKernel(t *testing.T) {
	t.Parallel()
	more := calico()
	more.RouterLifetime, more.Routes = 0, nil
	for _, p := range []string{"fd00:30::/112", "fd00:40::9/128"} {
		more.Prefixes = append(more.Prefixes, netip.MustParsePrefix(p))
	}
	for _, c := range []struct {
		name   string
		ad     Advertisement
		routes []string
		not    string
	}{
		{"calico", calico(), []string{"default via " + router.String() + " proto ra"}, "expires"},
		{"on-link", onLink(), []string{"default via " + router.String() + " proto ra", "fd00:10:244:1::/64 proto kernel"}, "fd00:10:244::/56"},
		{"more on the link, no router", more, []string{"fd00:30::/112 proto kernel", "fd00:40::9 proto kernel"}, "default"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewTapNS(t)
			s := serveOn(t, pod, c.ad)
			guest := podtest.NewGuest(t, pod, "tap0", guestMAC[:])
			routes := awaitRoutes(t, guest, c.routes)
			if strings.Contains(routes, c.not) {
				t.Errorf("the guest has %q:\n%s", c.not, routes)
			}
			if c.ad.RouterLifetime > 0 && !strings.Contains(routes, "mtu 1450") {
				t.Errorf("the guest has another MTU:\n%s", routes)
			}
			if out := guest.Run(t, "ip", "-6", "address", "show", "dev", "eth0", "scope", "global"); out != "" {
				t.Errorf("the guest has made itself an address:\n%s", out)
			}
			// It asks from its link-local address.
			status := await(t, s, "asked", func(s Status) bool { return s.Sent["RA"] > 0 })
			if len(status.Dropped) != 0 {
				t.Errorf("status is %+v", status)
			}
		})
	}
}

// awaitRoutes waits until the guest has all these routes.
func awaitRoutes(t *testing.T, guest *podtest.Guest, want []string) string {
	t.Helper()
	cmd := guest.NS.Command(t.Context(), "ip", "-6", "monitor", "route")
	events, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for lines := bufio.NewScanner(events); ; {
		routes := guest.Run(t, "ip", "-6", "route", "show", "dev", "eth0")
		missing := ""
		for _, r := range want {
			if !strings.Contains(routes, r) {
				missing = r
			}
		}
		if missing == "" {
			return routes
		}
		if !lines.Scan() {
			t.Fatalf("no route %q within %v, but:\n%s", missing, patience, routes)
		}
	}
}
