package redirect

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// An alias that can't be has the way out beside it.
func TestCheckAlias(t *testing.T) {
	for alias, says := range map[string]string{
		"169.254.100.3": "choose 169.254.100.1 or 169.254.100.2",
		"169.254.100.4": "choose 169.254.100.5 or 169.254.100.6",
		"fd00:100::":    "choose fd00:100::1 or fd00:100::2",
		"169.254.100.1": "", "169.254.100.2": "", "fd00:100::2": "",
	} {
		a := netip.MustParseAddr(alias)
		err := checkAlias(discover.Interface{}, a)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that has %q", alias, err, says)
		}
	}
}

// What another link of the pod has is not chosen, in no part of the addresses; where
// there is nothing left, that is said.
func TestAliasElsewhere(t *testing.T) {
	t.Parallel()
	in := eth0()
	first, err := aliasesFor(in, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	last := []netip.Prefix{netip.MustParsePrefix("169.254.96.0/20"), netip.MustParsePrefix("169.254.112.0/20")}
	for _, c := range []struct {
		elsewhere []netip.Prefix
		want      netip.Prefix // of IPv4's; zero: none is free
	}{
		{[]netip.Prefix{netip.PrefixFrom(first[0].VM, 32), netip.PrefixFrom(first[1].Pod, 128)}, aliases4[0]},
		{[]netip.Prefix{netip.PrefixFrom(first[0].Pod, 30), netip.PrefixFrom(first[1].Pod, 17)}, aliases4[0]},
		{aliases4[:1], aliases4[1]},
		{[]netip.Prefix{netip.MustParsePrefix("169.254.128.0/17")}, aliases4[2]},
		{append(last, netip.MustParsePrefix("169.254.128.0/17")), netip.Prefix{}},
	} {
		in.Elsewhere = nil
		for _, p := range c.elsewhere {
			in.Elsewhere = append(in.Elsewhere, discover.LinkNetwork{Link: "lo", Network: p})
		}
		got, err := aliasesFor(in, engine.Options{})
		if !c.want.IsValid() {
			if err == nil || !strings.Contains(err.Error(), "choose one that the pod has no route to") {
				t.Errorf("beside %v: %v, %v", c.elsewhere, got, err)
			}
			continue
		}
		if err != nil || !c.want.Contains(got[0].VM) {
			t.Errorf("beside %v: %v, %v, want one of %v", c.elsewhere, got, err, c.want)
			continue
		}
		for _, a := range got {
			for _, p := range c.elsewhere {
				if p.Contains(a.VM) || p.Contains(a.Pod) {
					t.Errorf("beside %v: %v", p, a)
				}
			}
		}
	}
}
