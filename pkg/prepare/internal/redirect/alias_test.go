package redirect

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// An alias that can't be has the way out beside it.
func TestCheckAlias(t *testing.T) {
	for alias, says := range map[string]string{
		"169.254.100.3": "choose 169.254.100.1 or 169.254.100.2",
		"169.254.100.4": "choose 169.254.100.5 or 169.254.100.6",
		"fd00:100::":    "choose fd00:100::1 or fd00:100::2",
		"fe80::1":       "choose one such as",
		"224.0.0.1":     "choose one such as",
		"169.254.100.1": "", "169.254.100.2": "", "fd00:100::2": "",
	} {
		a := netip.MustParseAddr(alias)
		err := checkAlias(discover.Interface{}, a, a.Is4())
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that has %q", alias, err, says)
		}
	}
}
