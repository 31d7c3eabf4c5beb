package cniplugin

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// newResult is the result of the plugin before, or else what the pod has by the
// interface, with the tap as a further interface of the pod.
func (c call) newResult(h prestart.Hook, prepared prestart.Interface) (*types100.Result, error) {
	r := &types100.Result{}
	if c.conf.prev != nil {
		*r = *c.conf.prev
	} else if err := c.addInterface(r, h, prepared); err != nil {
		return nil, err
	}
	tap := c.tap(prepared.NIC)
	if !slices.ContainsFunc(r.Interfaces, func(i *types100.Interface) bool { return i.Name == tap.Name && i.Sandbox == tap.Sandbox }) {
		r.Interfaces = append(slices.Clone(r.Interfaces), tap) // else the plugin is in the list twice
	}
	return r, nil
}

func (c call) tap(n guest.NIC) *types100.Interface {
	return &types100.Interface{Name: n.Tap, Mac: n.TapMAC.String(), Mtu: n.MTU, Sandbox: c.Netns}
}

// addInterface adds the pod's interface, and what the VM has by it.
func (c call) addInterface(r *types100.Result, h prestart.Hook, prepared prestart.Interface) error {
	var there []discover.Interface
	err := h.InNetns(func() (err error) {
		there, err = discover.ReadInterfaces()
		return err
	})
	if err != nil {
		return err
	}
	n := prepared.NIC
	at := slices.IndexFunc(there, func(i discover.Interface) bool { return i.Name == n.Interface })
	if at < 0 {
		return fmt.Errorf("the interface %s is gone", n.Interface)
	}
	r.Interfaces = []*types100.Interface{{Name: n.Interface, Mac: there[at].MAC.String(), Mtu: there[at].MTU, Sandbox: c.Netns}}
	for _, a := range prepared.Addresses {
		gateway := gatewayOf(n, a.Addr().Is4())
		r.IPs = append(r.IPs, &types100.IPConfig{Interface: new(0), Address: ipNet(a), Gateway: gateway.AsSlice()})
	}
	if n.IPv4 != nil {
		addRoutes(r, n.IPv4.Routes, netip.Addr{})
	}
	if n.IPv6 != nil {
		addRoutes(r, n.IPv6.Routes, gatewayOf(n, false))
	}
	for _, server := range h.Lease.DNS {
		r.DNS.Nameservers = append(r.DNS.Nameservers, server.String())
	}
	r.DNS.Search = h.Lease.Search
	return nil
}

// gatewayOf is the pod's gateway of a family; zero: it has none.
func gatewayOf(n guest.NIC, ipv4 bool) netip.Addr {
	if ipv4 {
		return n.IPv4.Gateway
	}
	if n.IPv6.Router != nil {
		return n.IPv6.Router.Gateway
	}
	return netip.Addr{}
}

// addRoutes adds routes; router is the gateway of those that name none, and zero where
// these are on the link.
func addRoutes(r *types100.Result, routes []guest.Route, router netip.Addr) {
	for _, route := range routes {
		gateway := route.Gateway
		if !gateway.IsValid() {
			gateway = router
		}
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(route.Destination), GW: gateway.AsSlice(), MTU: route.MTU})
	}
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
