package podtest

import (
	"context"
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

//go:embed dhclient6.sh
var dhclient6Script []byte

// Dhclient6 gets an IPv6 address by ISC's DHCPv6 client, which adds it to eth0
// and ends, and returns it. Duplicate address detection of the guest's own
// link-local address comes before, that of the new one goes on after it. It fails
// when no server has answered within ten seconds.
func (g *Guest) Dhclient6(ctx context.Context) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := WaitSettled(ctx, g.NS); err != nil {
		return netip.Addr{}, err
	}
	if err := os.WriteFile(g.path("dhclient6.sh"), dhclient6Script, 0o755); err != nil {
		return netip.Addr{}, fmt.Errorf("write dhclient's script: %w", err)
	}
	// It would stay to renew: as the first process of its namespace it is gone,
	// with all that it started, as soon as it goes into the background.
	out, err := g.Output(ctx, "unshare", "--pid", "--fork", "--kill-child", "dhclient", "-6", "-1", "-v", "-cf", "/dev/null",
		"-lf", g.path("dhclient.leases"), "-pf", g.path("dhclient.pid"), "-sf", g.path("dhclient6.sh"), "eth0")
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(strings.TrimSpace(out))
}
