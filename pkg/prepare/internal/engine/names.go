package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// LinkName prefixes the pod interface's name. Where that would be longer than
// the kernel allows, a hash of the name takes the place of its tail.
func LinkName(prefix, name string) string {
	if len(prefix)+len(name) < unix.IFNAMSIZ {
		return prefix + name
	}
	sum := sha256.Sum256([]byte(name))
	hash := hex.EncodeToString(sum[:3])
	head := name[:unix.IFNAMSIZ-1-len(prefix)-len(hash)]
	return prefix + strings.ToValidUTF8(head, "") + hash // a character may be cut in two
}

// DerivedMAC makes a locally administered unicast MAC from the pod's, so that
// a second run plans the same one.
func DerivedMAC(in discover.Interface, role string) mac.Addr {
	sum := sha256.Sum256(append([]byte(role+" "), in.MAC[:]...))
	a := mac.Of(sum[:6])
	a[0] = a[0]&^1 | 2 // IEEE 802: not a group address, locally administered
	return a
}

// Distinct refuses a name that is there twice.
func Distinct(names ...string) error {
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			return fmt.Errorf("the name %s is used twice", name)
		}
		seen[name] = true
	}
	return nil
}
