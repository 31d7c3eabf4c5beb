package redirect

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Aliases are chosen out of parts of the link-local addresses (RFC 3927) in which no
// CNI, cloud or DNS cache is known to have any, the second where a pod has the first, and
// so on, and out of a network of the pod's own (RFC 4193). They come in pairs: the two
// hosts of a /30 or a /126.
var aliases4 = []netip.Prefix{
	netip.MustParsePrefix("169.254.192.0/19"), netip.MustParsePrefix("169.254.128.0/19"), netip.MustParsePrefix("169.254.96.0/19"),
}

// pairs4 is how many pairs each of them has.
const pairs4 = 1 << (30 - 19)

// aliasesFor are the pairs for the interface, as chosen or given.
func aliasesFor(in discover.Interface, o engine.Options) (out []guest.Alias, err error) {
	for _, c := range []struct {
		given  netip.Addr
		choose func(discover.Interface, int) netip.Addr
	}{{o.VMAlias, choose4}, {o.VMAlias6, choose6}} {
		vm := c.given
		if vm.IsValid() {
			err = checkAlias(in, vm)
		} else {
			vm, err = freeAlias(in, c.choose)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, guest.Alias{VM: vm, Pod: paired(vm)})
	}
	return out, nil
}

// freeAlias is the first choice of an alias for the VM where the pod has nothing.
func freeAlias(in discover.Interface, choose func(discover.Interface, int) netip.Addr) (netip.Addr, error) {
	for n := range len(aliases4) * pairs4 {
		a := choose(in, n)
		if !slices.ContainsFunc([]netip.Addr{a, paired(a)}, func(a netip.Addr) bool { return isNear(in, a) || isElsewhere(in, a) }) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no alias is free for the VM: the pod has networks wherever one would be chosen, as at %s: choose one that the pod has no route to", choose(in, 0))
}

// choose4 is the n-th choice of an alias for the VM. Two interfaces of a pod have
// different indexes, and an interface keeps its own.
func choose4(in discover.Interface, n int) netip.Addr {
	base := binary.BigEndian.Uint32(aliases4[n/pairs4].Addr().AsSlice())
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, base+uint32((in.Index+n*61)%pairs4*4+2))))
}

// choose6 is that of IPv6.
func choose6(in discover.Interface, n int) netip.Addr {
	sum := sha256.Sum256(append([]byte("alias "), in.MAC[:]...))
	b := [16]byte{0: 0xfd, 15: 2}
	copy(b[1:6], sum[n%4*8:])
	binary.BigEndian.PutUint16(b[6:], uint16(in.Index+n*61))
	return netip.AddrFrom16(b)
}

// paired is the other host of an address's /30 or /126.
func paired(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] ^= 3
	other, _ := netip.AddrFromSlice(b)
	return other
}

// pairBits is the length of the network of an alias and the one paired with it.
func pairBits(a netip.Addr) int { return a.BitLen() - 2 }

// pairMask is the mask of that network.
func pairMask(a netip.Addr) netip.Addr {
	b := slices.Repeat([]byte{0xff}, a.BitLen()/8)
	b[len(b)-1] &^= 3
	mask, _ := netip.AddrFromSlice(b)
	return mask
}

// checkAlias tells why an address that was given can't be the VM's alias in this pod.
func checkAlias(in discover.Interface, a netip.Addr) error {
	pair := fmt.Sprintf("/%d", pairBits(a))
	b := a.AsSlice()
	if last := b[len(b)-1] & 3; last != 1 && last != 2 {
		first := slices.Clone(b)
		first[len(b)-1] = b[len(b)-1]&^3 | 1
		host, _ := netip.AddrFromSlice(first)
		if isNear(in, host) || isNear(in, paired(host)) {
			return fmt.Errorf("the VM's alias %s is in a network of the pod's: choose one that the pod has no route to", a)
		}
		return fmt.Errorf("the VM's alias %s is the first or last address of its %s, in which the VM and the pod get a host each: choose %s or %s", a, pair, host, paired(host))
	}
	for _, x := range []netip.Addr{a, paired(a)} {
		if isNear(in, x) {
			return fmt.Errorf("the VM's alias %s, with the pod's %s, is in a network of the pod's: choose one that the pod has no route to", a, paired(a))
		}
	}
	return nil
}

// isNear reports whether an address is the interface's, or somebody's whom the pod reaches
// by a route of it that is not as wide as that of all link-local addresses, or of all of a
// site's own, or, of other addresses, as half of the world.
func isNear(in discover.Interface, a netip.Addr) bool {
	wide := 16
	if a.Is4() && !a.IsLinkLocalUnicast() {
		wide = 1
	}
	return slices.ContainsFunc(in.Addresses, func(o discover.Address) bool {
		return o.Prefix.Addr() == a || o.Prefix.Bits() > wide && o.Prefix.Contains(a)
	}) || slices.ContainsFunc(in.Routes, func(r discover.Route) bool {
		return r.Gateway == a || r.Destination.Bits() > wide && r.Destination.Contains(a)
	}) || slices.ContainsFunc(in.Neighbors, func(n discover.Neighbor) bool { return n.Address == a })
}

// isElsewhere reports whether another link than the interface had a network with that
// address when the interface was read.
func isElsewhere(in discover.Interface, a netip.Addr) bool {
	return slices.ContainsFunc(in.Elsewhere, func(n discover.LinkNetwork) bool { return n.Network.Contains(a) })
}
