package engine

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// What the kernel says has the way out behind it.
func TestExplain(t *testing.T) {
	t.Parallel()
	lacking := &nft.LackingError{
		What: "expression fwd in nftables (CONFIG_NFT_FWD_NETDEV)", Purpose: "the table that shares eth0 with the VM", Without: ", or use the datapath bridge", Err: unix.ENOENT,
	}
	for want, err := range map[string]error{
		"no such file or directory": unix.ENOENT,
		"operation not permitted: this needs the capability NET_ADMIN in the pod's network namespace (securityContext.capabilities.add: [NET_ADMIN])": unix.EPERM,
		"operation not supported: the node's kernel does not support this":                                                                            unix.EOPNOTSUPP,
		"nft add table: no such file or directory: the node's kernel has no expression fwd in nftables (CONFIG_NFT_FWD_NETDEV), " +
			"which the table that shares eth0 with the VM is made of: use a node whose kernel has it, or its module, or use the datapath bridge": fmt.Errorf("nft add table: %w", lacking),
		"sorry: try again": Advise(fmt.Errorf("sorry: try again")),
	} {
		if got := Explain(err); got.Error() != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}
