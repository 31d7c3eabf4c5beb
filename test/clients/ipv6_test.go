package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"   //nolint:depguard // served here, not by the program
	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal" //nolint:depguard // of dhcp6
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"      //nolint:depguard // served here, not by the program
)

// lease6 is a pod, and what a guest is told by IPv6.
type lease6 struct {
	name  string
	shape podtest.Shape
	// address and prefix are for shapes without IPv6: the bridge has the prefix's
	// first address then.
	address, prefix string
	valid           time.Duration
}

func leases6() []lease6 {
	return []lease6{
		{name: "calico", shape: podtest.CalicoDual},
		{name: "kindnet", shape: podtest.KindnetDual},
		{name: "bridge", shape: podtest.Bridge, address: "fd00:10:22::7", prefix: "fd00:10:22::/64"},
		{name: "finite", shape: podtest.CalicoDual, valid: 20 * time.Second},
	}
}

// state6 is what a client made of it.
type state6 struct {
	Addresses []string // global ones, with prefix length and what is wrong with them
	Default   []string // gateways
	OnLink    []string // destinations without a gateway, but for the address
	DNS       []string
	Search    []string
}

// seat6 is a pod whose tap is served.
type seat6 struct {
	lease6
	pod    *podtest.Pod
	given  state6
	server *dhcp6.Server
	router *ra.Server
}

// TestClientsIPv6: each client gets its address, its default route and its name
// servers, and is reached, on pods of several shapes.
func TestClientsIPv6(t *testing.T) {
	fetch(t)
	// They mostly wait, so more at once than there are processors.
	slots := make(chan struct{}, 8)
	var work sync.WaitGroup
	for _, l := range slices.Backward(leases6()) {
		for _, c := range []string{"dhclient", "dhcpcd", "networkd", "networkmanager", "connman"} {
			if c == "connman" && l.valid > 0 {
				continue // it takes its address away when it renews, and puts it back later
			}
			slots <- struct{}{}
			work.Go(func() {
				defer func() { <-slots }()
				t.Run(l.name+"/"+c, func(t *testing.T) {
					at := l.serve(t)
					want := at.given
					if c == "connman" && l.prefix != "" {
						want.Addresses = []string{l.address + "/64"} // it takes the prefix's length
					}
					at.take(t, want, startIn(t, newGuest(t, at.pod), c, "start6"))
				})
			})
		}
	}
	work.Wait()
}

// await waits until the client has what it should. No event is common to all
// clients.
func (at *seat6) await(t *testing.T, want state6, guest *sandbox) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for got := guest.state6(t); !reflect.DeepEqual(got, want); got = guest.state6(t) {
		if time.Now().After(deadline) {
			t.Fatalf("got  %+v\nwant %+v\nDHCPv6: %+v\nadvertisements: %+v", got, want, at.server.Status(), at.router.Status())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (at *seat6) take(t *testing.T, want state6, guest *sandbox) {
	t.Helper()
	at.await(t, want, guest)
	if at.valid > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if status, err := at.server.Wait(ctx, func(s dhcp6.Status) bool { return !s.Renewed.IsZero() }); err != nil {
			t.Fatalf("%v: %+v", err, status)
		}
		at.await(t, want, guest)
	}
	// Both ways, through the node.
	guest.guest.Run(t, "ping", "-6", "-n", "-c", "1", "-W", "5", podtest.OutsideIPv6.String())
	at.pod.Outside.Run(t, "ping", "-6", "-n", "-c", "1", "-W", "5", strings.TrimSuffix(at.given.Addresses[0], "/128"))

	status, router := at.server.Status(), at.router.Status()
	if status.State != journal.Bound || len(status.Dropped) != 0 || len(router.Dropped) != 0 || status.LastError.Error != "" || router.LastError.Error != "" {
		t.Errorf("DHCPv6: %+v\nadvertisements: %+v", status, router)
	}
	t.Logf("%+v, %v, %v", status.Client, status.Received, router.Received)

	// Without the server the guest would keep it all.
	routes := guest.guest.Run(t, "ip", "-6", "route", "show", "default", "dev", "eth0")
	address := guest.guest.Run(t, "ip", "-6", "address", "show", "dev", "eth0", "scope", "global")
	if strings.Contains(routes, "expires") || at.valid == 0 && !strings.Contains(address, "valid_lft forever preferred_lft forever") {
		t.Errorf("it ends:\n%s%s", routes, address)
	}
}

// serve makes the pod, puts its interface on a bridge with the tap, as prepare
// would, and serves the tap until the test's end.
func (l lease6) serve(t *testing.T) *seat6 {
	t.Helper()
	pod := podtest.NewPod(t, l.shape)
	link, address := pod.NodeLink, pod.IPv6.Addr()
	ad := ra.Advertisement{
		Managed: true, Other: true, RouterLifetime: ra.MaxRouterLifetime, MTU: pod.MTU,
		Routes: []netip.Prefix{netip.MustParsePrefix("::/0")},
		DNS:    []netip.Addr{netip.MustParseAddr("fd00:10:96::a")},
		Search: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
	}
	at := &seat6{lease6: l, pod: pod, given: state6{
		DNS: []string{"fd00:10:96::a"}, Search: ad.Search,
	}}
	if l.prefix != "" {
		prefix := netip.MustParsePrefix(l.prefix)
		link, address = "cni0", netip.MustParseAddr(l.address)
		pod.Node.IP(t, fmt.Sprintf("addr add %v/%d dev cni0 nodad", prefix.Addr().Next(), prefix.Bits()))
		// The port guard is not here to drop what comes back.
		pod.Node.IP(t, "link set "+pod.NodeLink+" type bridge_slave hairpin off")
		ad.Prefixes = []ra.Prefix{{Prefix: prefix, OnLink: true}}
		at.given.OnLink = []string{l.prefix}
	}
	rewire(t, pod)
	ad.Router, ad.MAC = linkLocalOf(t, pod.Node, link)
	at.given.Addresses, at.given.Default = []string{address.String() + "/128"}, []string{ad.Router.String()}
	at.start(t, ad, dhcp6.Lease{MAC: pod.MAC, Address: address, Server: ad.Router, DNS: ad.DNS, Search: ad.Search, Valid: l.valid})
	return at
}

// rewire bridges the pod's interface with a tap, without an address on any.
func rewire(t *testing.T, pod *podtest.Pod) {
	t.Helper()
	pod.Pod.IP(t,
		"link set eth0 down",
		"link set eth0 name up-eth0 address 02:00:00:00:00:02 addrgenmode none",
		"link add br-eth0 type bridge forward_delay 0 mcast_snooping 0",
		"link set br-eth0 addrgenmode none",
		"tuntap add dev tap-eth0 mode tap vnet_hdr",
		"link set tap-eth0 addrgenmode none mtu "+fmt.Sprint(pod.MTU),
		"link set up-eth0 master br-eth0 up",
		// A hairpin port of the node sends the guest's broadcasts back.
		"link set up-eth0 type bridge_slave learning off",
		"link set tap-eth0 master br-eth0 up",
		"link set br-eth0 up")
}

// linkLocalOf is the link-local address of an interface, and its MAC.
func linkLocalOf(t *testing.T, ns *podtest.NS, name string) (netip.Addr, net.HardwareAddr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := podtest.WaitSettled(ctx, ns); err != nil {
		t.Fatal(err)
	}
	var links []struct {
		link
		MAC string `json:"address"`
	}
	readJSON(t, []byte(ns.Run(t, "ip", "-json", "address", "show", "dev", name, "scope", "link")), &links)
	mac, err := net.ParseMAC(links[0].MAC)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range links[0].Addresses {
		if addr, err := netip.ParseAddr(a.Local); err == nil && addr.Is6() && addr.IsLinkLocalUnicast() {
			return addr, mac
		}
	}
	t.Fatalf("%s has no link-local address: %+v", name, links)
	return netip.Addr{}, nil
}

// start serves the tap until the test's end.
func (at *seat6) start(t *testing.T, ad ra.Advertisement, lease dhcp6.Lease) {
	t.Helper()
	var advertise *ra.Conn
	var lend *dhcp6.Conn
	err := at.pod.Pod.Do(func() (err error) {
		if advertise, err = ra.Listen("tap-eth0"); err != nil {
			return err
		}
		lend, err = dhcp6.Listen("tap-eth0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	if at.router, err = ra.NewServer(advertise, at.pod.MAC, ad, log); err != nil {
		t.Fatal(err)
	}
	if at.server, err = dhcp6.NewServer(lend, lease, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- at.router.Serve(ctx) }()
	go func() { done <- at.server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		_ = advertise.Close()
		_ = lend.Close()
	})
}

// state6 reads what there is now.
func (c *sandbox) state6(t *testing.T) state6 {
	t.Helper()
	var s state6
	var links []struct {
		Addresses []struct {
			Local     string `json:"local"`
			Length    int    `json:"prefixlen"`
			Tentative bool   `json:"tentative"`
			Failed    bool   `json:"dadfailed"`
		} `json:"addr_info"`
	}
	readJSON(t, []byte(c.guest.NS.Run(t, "ip", "-json", "-6", "address", "show", "dev", "eth0", "scope", "global")), &links)
	for _, l := range links {
		for _, a := range l.Addresses {
			if a.Local == "" {
				continue // of another scope
			}
			text := fmt.Sprintf("%s/%d", a.Local, a.Length)
			if a.Tentative || a.Failed {
				text += " not yet"
			}
			s.Addresses = append(s.Addresses, text)
		}
	}
	var routes []struct {
		route
		Nexthops json.RawMessage `json:"nexthops"`
	}
	readJSON(t, []byte(c.guest.NS.Run(t, "ip", "-json", "-6", "route", "show", "dev", "eth0")), &routes)
	for _, r := range routes {
		switch {
		case r.Destination == "default":
			s.Default = append(s.Default, r.Gateway)
		case r.Gateway == "" && !strings.HasPrefix(r.Destination, "fe80:") && !strings.HasPrefix(r.Destination, "ff") && !slices.Contains(s.Addresses, r.Destination+"/128"):
			s.OnLink = append(s.OnLink, r.Destination)
		}
	}
	s.Default, s.OnLink = slices.Compact(s.Default), slices.Compact(s.OnLink)
	var told state
	c.told(t, &told)
	s.DNS, s.Search = unique(told.DNS), unique(told.Search)
	return s
}

// unique is the list without what was there before: clients put together what
// they were told by advertisements and by DHCPv6.
func unique(list []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
