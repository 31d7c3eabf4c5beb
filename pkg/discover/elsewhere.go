package discover

import (
	"net/netip"
	"slices"
)

// elsewhere returns the networks that links other than that of the index have, of the
// ranges that need no allocation: an [Interface.Elsewhere].
func (k kernel) elsewhere(index int) (networks []netip.Prefix) {
	var all []netip.Prefix
	add := func(networkOrHost netip.Prefix) {
		// A wide network says only that such addresses are used on the link.
		if a := networkOrHost.Addr(); networkOrHost.Bits() > 16 && (a.Is4() && a.IsLinkLocalUnicast() || a.Is6() && a.IsPrivate()) {
			all = append(all, networkOrHost.Masked())
		}
	}
	host := func(a netip.Addr) {
		if a.IsValid() {
			add(netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for link, addresses := range k.addresses {
		for _, a := range addresses {
			if link != index {
				add(a.Prefix)
				host(a.Prefix.Addr())
			}
		}
	}
	for link, neighbors := range k.neighbors {
		for _, n := range neighbors {
			if link != index {
				host(n.Address)
			}
		}
	}
	for _, r := range k.routes {
		if r.link() != index {
			add(r.Destination)
			host(r.Gateway)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare) // one that has others in it comes before them
	for _, p := range all {
		if n := len(networks); n == 0 || !networks[n-1].Overlaps(p) {
			networks = append(networks, p)
		}
	}
	return networks
}
