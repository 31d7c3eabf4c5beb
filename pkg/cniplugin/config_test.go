package cniplugin

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// A result of the plugin before that has holes is refused in CNI's way.
func TestHolesInPrevResult(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for _, list := range []string{"interfaces", "ips", "routes"} {
			_, err := readConfig(fmt.Appendf(nil, `{"cniVersion": %q, "name": "net", "prevResult": {"cniVersion": %[1]q, %q: [null]}}`, version, list))
			if e, ok := errors.AsType[*types.Error](err); !ok || e.Code != types.ErrDecodingFailure {
				t.Errorf("%s of %s: %v", list, version, err)
			}
		}
	}
}
