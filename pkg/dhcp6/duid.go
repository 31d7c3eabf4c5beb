package dhcp6

import (
	"crypto/sha256"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// serverID makes a DUID (RFC 8415 §11.5) that follows from the guest's address
// alone, so that it is the same after a restart and in another pod, and that is
// no DUID that the guest could have.
func serverID(guest mac.Addr) *dhcpv6.DUIDOpaque {
	sum := sha256.Sum256(append([]byte("virt-launcher-net DHCPv6 server of "), guest[:]...))
	uuid := sum[:16]
	uuid[6] = uuid[6]&0x0f | 0x80 // version 8: made by a rule of our own (RFC 9562 §5.8)
	uuid[8] = uuid[8]&0x3f | 0x80
	return &dhcpv6.DUIDOpaque{Type: dhcpv6.DUID_UUID, Data: uuid}
}
