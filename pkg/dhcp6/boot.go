package dhcp6

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

// enterpriseLen is how long the number is that a vendor class begins with (RFC
// 8415 §21.16).
const enterpriseLen = 4

// addBoot adds what network boot needs: the client's boot file and, for UEFI
// HTTP boot, the word that we are a server for such. PXE firmware is not told
// so: it would ask us for the file once more, as a boot server.
func (r *responder) addBoot(m, req *dhcpv6.Message) {
	name := r.lease.BootFiles.For(valueOf(req, dhcpv6.OptionClientArchType), isIPXE(req))
	if name == "" {
		return
	}
	m.Options.Add(dhcpv6.OptBootFileURL(name))
	enterprise, class := vendorClass(req)
	if bytes.HasPrefix(class, []byte(netboot.HTTPClient)) && strings.HasPrefix(name, "http") {
		m.Options.Add(&dhcpv6.OptVendorClass{EnterpriseNumber: enterprise, Data: [][]byte{[]byte(netboot.HTTPClient)}})
	}
}

// isIPXE recognises iPXE by its user class (RFC 8415 §21.15).
func isIPXE(req *dhcpv6.Message) bool {
	return bytes.Contains(valueOf(req, dhcpv6.OptionUserClass), []byte("iPXE"))
}

// vendorClass is the number of the client's vendor and the first word of its
// class; nil: it has none.
func vendorClass(req *dhcpv6.Message) (enterprise uint32, class []byte) {
	v := valueOf(req, dhcpv6.OptionVendorClass)
	if len(v) < enterpriseLen+2 {
		return 0, nil
	}
	size := int(binary.BigEndian.Uint16(v[enterpriseLen:]))
	rest := v[enterpriseLen+2:]
	return binary.BigEndian.Uint32(v), rest[:min(size, len(rest))]
}

// valueOf is the value of a message's option; nil: it has none.
func valueOf(m *dhcpv6.Message, code dhcpv6.OptionCode) []byte {
	if o := m.Options.GetOne(code); o != nil {
		return o.ToBytes()
	}
	return nil
}
