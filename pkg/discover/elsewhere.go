package discover

import (
	"cmp"
	"net/netip"
	"slices"
)

// A LinkNetwork is a network, or the address of a host, that the pod has by a link.
type LinkNetwork struct {
	Link    string       `json:"link,omitempty"` // empty: a route through no link, or several
	Network netip.Prefix `json:"network"`
}

// elsewhere returns the networks that links other than that of the index have, of the
// ranges that need no allocation: an [Interface.Elsewhere].
func (k kernel) elsewhere(index int) (networks []LinkNetwork) {
	names := map[int]string{}
	for _, l := range k.links {
		names[l.Index] = l.Name
	}
	var all []LinkNetwork
	add := func(link int, network netip.Prefix) {
		// A wide network says only that such addresses are used on the link.
		if a := network.Addr(); link != index && network.Bits() > 16 && (a.Is4() && a.IsLinkLocalUnicast() || a.Is6() && a.IsPrivate()) {
			all = append(all, LinkNetwork{names[link], network.Masked()})
		}
	}
	host := func(link int, a netip.Addr) {
		if a.IsValid() {
			add(link, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for link, addresses := range k.addresses {
		for _, a := range addresses {
			add(link, a.Prefix)
			host(link, a.Prefix.Addr())
		}
	}
	for link, neighbors := range k.neighbors {
		for _, n := range neighbors {
			host(link, n.Address)
		}
	}
	for _, r := range k.routes {
		add(r.link(), r.Destination)
		host(r.link(), r.Gateway)
	}
	slices.SortFunc(all, func(a, b LinkNetwork) int { // one that has others in it comes before them
		return cmp.Or(cmp.Compare(a.Link, b.Link), a.Network.Compare(b.Network))
	})
	for _, n := range all {
		if last := len(networks) - 1; last < 0 || networks[last].Link != n.Link || !networks[last].Network.Overlaps(n.Network) {
			networks = append(networks, n)
		}
	}
	return networks
}
