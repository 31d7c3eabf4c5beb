package podtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// OutsideIP and OutsideIPv6 are the addresses in [Pod.Outside], beyond the node.
var (
	OutsideIP   = netip.MustParseAddr("192.0.2.10")
	OutsideIPv6 = netip.MustParseAddr("2001:db8::10")
)

// Pod is a pod with the node it is on and a host beyond that node:
//
//	Pod eth0 ── NodeLink Node uplink0 ── eth0 Outside
//
// The node forwards between the two. All three namespaces are closed by Close.
type Pod struct {
	*NS // the pod's own

	Shape   Shape
	Node    *NS
	Outside *NS // has OutsideIP and OutsideIPv6, routes to everything through the node

	Interface string // pod's interface: "eth0"
	MAC       net.HardwareAddr
	MTU       int
	NodeLink  string // node's end of the pod's veth pair

	IPv4        netip.Prefix // zero: none
	Gateway     netip.Addr   // zero: none; not always an address that answers a ping
	IPv6        netip.Prefix // zero: no global one
	IPv6Gateway netip.Addr

	detach func() error // nil: nothing to do but close the namespaces
}

// NewPod makes a pod of the shape for a test and closes it at the test's end.
func NewPod(t testing.TB, shape Shape) *Pod {
	t.Helper()
	pod, err := BuildPod(t.Context(), shape)
	requireNS(t, err)
	closeAfter(t, pod.Close)
	return pod
}

// NewBarePod makes a node and a pod without an interface for a test, for a CNI
// plugin to add one, and closes them at the test's end.
func NewBarePod(t testing.TB) *Pod {
	t.Helper()
	pod, err := NewNode(t.Context())
	requireNS(t, err)
	closeAfter(t, pod.Close)
	return pod
}

// BuildPod makes a node and a pod of the shape from plain veth pairs. The
// caller closes it.
func BuildPod(ctx context.Context, shape Shape) (*Pod, error) {
	l, ok := shape.layout()
	if !ok {
		return nil, fmt.Errorf("build pod: no shape %q", shape)
	}
	pod, err := NewNode(ctx)
	if err != nil {
		return nil, err
	}
	pod.Shape = shape
	if err := pod.plug(ctx, l); err != nil {
		return nil, errors.Join(fmt.Errorf("build %s pod: %w", shape, err), pod.Close())
	}
	return pod, nil
}

// NewNode makes the three namespaces, connects node and outside, and leaves
// the pod without an interface, for [AddCNI] to do the rest. The caller closes
// it.
func NewNode(ctx context.Context) (*Pod, error) {
	pod := &Pod{}
	for _, ns := range []**NS{&pod.Node, &pod.NS, &pod.Outside} {
		made, err := NewNS()
		if err != nil {
			return nil, errors.Join(err, pod.Close())
		}
		*ns = made
	}
	if err := pod.connectOutside(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("build node: %w", err), pod.Close())
	}
	return pod, nil
}

func (p *Pod) connectOutside(ctx context.Context) error {
	// Only the pod is under test: outside it no duplicate address detection,
	// which would keep the node from forwarding for its first seconds.
	if err := setAll(p.Outside, map[string]string{"net/ipv6/conf/default/accept_dad": "0"}); err != nil {
		return err
	}
	if err := setAll(p.Node, map[string]string{
		"net/ipv6/conf/default/accept_dad": "0",
		"net/ipv4/ip_forward":              "1",
		"net/ipv6/conf/all/forwarding":     "1",
		"net/ipv4/conf/all/rp_filter":      "0",
		"net/ipv4/conf/default/rp_filter":  "0",
	}); err != nil {
		return err
	}
	if err := p.Node.Batch(ctx,
		"link add uplink0 type veth peer name eth0 netns "+p.Outside.Path(),
		"link set uplink0 up",
		"addr add 192.0.2.1/24 brd + dev uplink0",
		"addr add 2001:db8::1/64 dev uplink0"); err != nil {
		return err
	}
	if err := p.Outside.Batch(ctx,
		"link set eth0 up",
		"addr add "+OutsideIP.String()+"/24 brd + dev eth0",
		"addr add "+OutsideIPv6.String()+"/64 dev eth0",
		"route add default via 192.0.2.1",
		"route add default via 2001:db8::1"); err != nil {
		return err
	}
	return p.Node.Batch(ctx, "route add default via "+OutsideIP.String(), "route add default via "+OutsideIPv6.String())
}

func (p *Pod) plug(ctx context.Context, l layout) error {
	add := fmt.Sprintf("link add %s mtu %d type veth peer name eth0 address %s mtu %d netns %s",
		l.link, l.mtu, l.mac, l.mtu, p.Path())
	if l.linkMAC != "" {
		add = fmt.Sprintf("link add %s address %s mtu %d type veth peer name eth0 address %s mtu %d netns %s",
			l.link, l.linkMAC, l.mtu, l.mac, l.mtu, p.Path())
	}
	if err := p.Node.Batch(ctx, add); err != nil {
		return err
	}
	if err := setAll(p.Node, l.sysctls); err != nil {
		return err
	}
	node := slices.Concat(l.host, l.node, []string{"link set " + l.link + " up"})
	for i, line := range node {
		node[i] = strings.ReplaceAll(line, " netns POD", " netns "+p.Path())
	}
	if err := p.Node.Batch(ctx, node...); err != nil {
		return err
	}
	if err := setAll(p.NS, l.podSys); err != nil {
		return err
	}
	if err := p.Batch(ctx, l.pod...); err != nil {
		return err
	}
	mac, err := net.ParseMAC(l.mac)
	p.Interface, p.MAC, p.MTU, p.NodeLink = "eth0", mac, l.mtu, l.link
	p.IPv4, p.Gateway, p.IPv6, p.IPv6Gateway = l.address, l.gateway, l.v6, l.v6gw
	return err
}

func setAll(ns *NS, sysctls map[string]string) error {
	for key, value := range sysctls {
		if err := ns.Sysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}

// Close has the CNI plugins, if they made the pod, take it from the network,
// and closes the three namespaces.
func (p *Pod) Close() error {
	var errs []error
	if p.detach != nil {
		errs = append(errs, p.detach())
	}
	for _, ns := range []*NS{p.NS, p.Node, p.Outside} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}
