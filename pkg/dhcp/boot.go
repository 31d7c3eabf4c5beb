package dhcp

import (
	"bytes"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

// isIPXE recognises iPXE by its user class (option 77), which it sends as bare
// text where RFC 3004 wants a list, or by its own options (175).
func isIPXE(req *dhcpv4.DHCPv4) bool {
	_, ok := req.Options[optIPXE]
	return ok || bytes.Contains(req.Options[optUserClass], []byte("iPXE"))
}

// pxeNoDiscovery is the vendor option (43) that has PXE firmware load the boot
// file it was named rather than look for boot servers: PXE_DISCOVERY_CONTROL
// with bit 3, and the end (PXE 2.1, table 2-1).
var pxeNoDiscovery = []byte{6, 1, 8, optEnd}

// addBoot adds what network boot needs: where the file is, the client's file
// and, for firmware that looks for it, the word that we are a server for such.
func (r *responder) addBoot(m, req *dhcpv4.DHCPv4) {
	m.ServerIPAddr, m.ServerHostName = r.siaddr, r.lease.TFTPServer
	if id := req.Options[optClientUUID]; len(id) > 0 {
		m.Options[optClientUUID] = id // RFC 4578 §2.3
	}
	if len(r.lease.BootFiles) == 0 {
		return
	}
	name := r.lease.BootFiles.For(req.Options[optArchitecture], isIPXE(req))
	if name == "" {
		return
	}
	if len(name) <= maxBootField {
		m.BootFileName = name
	}
	m.Options[optBootFile] = []byte(name)
	class := req.Options[optVendorClass]
	switch {
	case bytes.HasPrefix(class, []byte(netboot.PXEClient)):
		m.Options[optVendorClass] = []byte(netboot.PXEClient)
		m.Options[optVendor] = pxeNoDiscovery
	case bytes.HasPrefix(class, []byte(netboot.HTTPClient)) && strings.HasPrefix(name, "http"):
		m.Options[optVendorClass] = []byte(netboot.HTTPClient)
	}
}
