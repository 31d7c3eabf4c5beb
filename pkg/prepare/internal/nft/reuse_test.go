package nft

import (
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
)

// What a rule compares and looks up is loaded once, where the key has it.
func TestReuse(t *testing.T) {
	t.Parallel()
	alias := netip.MustParseAddr("169.254.100.1")
	flow := []Operand{IPDestination, L4Protocol, DestinationPort, SourcePort}
	for name, tt := range map[string]struct {
		rule  Rule
		loads int
	}{
		"compared before and after":          {Rule{L4Protocol.Is(UDP), UDPDestination.NotIn(67, 68), UDPSource.Not(67), NotInSet(flows4, flow...), IPDestination.Not(alias), Accept}, 4},
		"two keys":                           {Rule{InSet(flows4, flow...), UpdateSet(flows4, 0, flow...), Accept}, 4},
		"a mask leaves another value":        {Rule{IPDestination.Masked(alias).Is(alias), NotInSet(flows4, flow...), Accept}, 5},
		"two keys, each with its own fields": {Rule{L4Protocol.Is(UDP), InSet(flows4, flow...), InSet(flows4, IPSource, L4Protocol, SourcePort, DestinationPort), Accept}, 9},
		"no key":                             {Rule{L4Protocol.Is(UDP), UDPSource.Not(67), SourcePort.Not(8080), Accept}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 0
			for _, e := range tt.rule.exprs(Netdev, func(string) int { return 0 }) {
				if field, _ := loads(e); field != nil {
					n++
				}
				if c, is := e.(*expr.Cmp); is && tt.loads == 4 && c.Register < keyRegister {
					t.Errorf("register %d is compared, which has no part of the key", c.Register)
				}
			}
			if n != tt.loads {
				t.Errorf("%d loads, want %d", n, tt.loads)
			}
		})
	}
}
