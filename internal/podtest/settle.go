package podtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// WaitSettled waits until the kernel is done with what was last changed in the
// namespace: no IPv6 address is tentative or without its local route, and each link's operational state
// has caught up with its carrier. An address that failed duplicate address
// detection is an error. It waits for netlink events, at most until ctx ends.
func WaitSettled(ctx context.Context, ns *NS) error {
	return waitUntil(ctx, ns, "namespace has settled", unsettled)
}

// WaitRouter waits until the namespace has an IPv6 default route by a router
// advertisement, at most until ctx ends.
func WaitRouter(ctx context.Context, ns *NS) error {
	return waitUntil(ctx, ns, "router has advertised itself", routerless)
}

// WaitCarrier waits until a link has a carrier, as a NIC's has seconds after it was set up. It
// waits for netlink events, at most until ctx ends.
func WaitCarrier(ctx context.Context, ns *NS, name string) error {
	return waitUntil(ctx, ns, "link has a carrier", func() (string, error) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return "", fmt.Errorf("look at link %s: %w", name, err)
		}
		if link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
			return name + " has none", nil
		}
		return "", nil
	})
}

// waitUntil waits until missing, in the namespace, names nothing any more. It
// looks at each netlink event.
func waitUntil(ctx context.Context, ns *NS, what string, missing func() (string, error)) error {
	events, err := openEvents(ns)
	if err != nil {
		return fmt.Errorf("wait until %s: %w", what, err)
	}
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		var waitFor string
		err := ns.Do(func() (err error) {
			waitFor, err = missing()
			return err
		})
		if err != nil || waitFor == "" {
			return err
		}
		// Which event it is does not matter: everything is looked at again.
		if _, err := events.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("wait until %s: %s: %w", what, waitFor, err)
		}
	}
}

// openEvents opens a netlink socket that hears of links, addresses and routes.
func openEvents(ns *NS) (*os.File, error) {
	var file *os.File
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		file = os.NewFile(uintptr(fd), "netlink")
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrNetlink{
			Family: unix.AF_NETLINK,
			Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE,
		}))
	})
	return file, err
}

// routerless says so if the current namespace has no router.
func routerless() (string, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_DST)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return "routes are changing", nil
	}
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	if len(routes) == 0 {
		return "no default route by a router", nil
	}
	return "", nil
}

// unsettled names something in the current namespace that is still to change
// by itself; empty if there is nothing.
func unsettled() (string, error) {
	links, err := netlink.LinkList()
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return "links are changing", nil
	}
	if err != nil {
		return "", fmt.Errorf("list links: %w", err)
	}
	noticed := false
	for _, link := range links {
		if laggard(link) == "" && link.Attrs().OperState != netlink.OperUnknown {
			continue
		}
		// The kernel takes up to a second before it notices (linkwatch_nextevent,
		// net/core/link_watch.c). Since 6.9 it does at once if it is asked for this link alone.
		asked, err := netlink.LinkByIndex(link.Attrs().Index)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return "links are changing", nil
		}
		if err != nil {
			return "", fmt.Errorf("look at link: %w", err)
		}
		if waitFor := laggard(asked); waitFor != "" {
			return waitFor, nil
		}
		noticed = noticed || asked.Attrs().OperState != link.Attrs().OperState
	}
	if noticed { // others follow, as a bridge its ports
		return unsettled()
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V6)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return "addresses are changing", nil
	}
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	for _, addr := range addrs {
		if addr.Flags&unix.IFA_F_DADFAILED != 0 {
			return "", fmt.Errorf("address %s failed duplicate address detection", addr.IPNet)
		}
		if addr.Flags&unix.IFA_F_TENTATIVE != 0 {
			return fmt.Sprintf("address %s is tentative", addr.IPNet), nil
		}
	}
	return unrouted(links, addrs)
}

// laggard names the link if its operational state has not caught up with its carrier.
func laggard(link netlink.Link) string {
	attrs := link.Attrs()
	isUp, hasCarrier := attrs.RawFlags&unix.IFF_UP != 0, attrs.RawFlags&unix.IFF_LOWER_UP != 0
	switch state := attrs.OperState; {
	case hasCarrier && state != netlink.OperUp && state != netlink.OperUnknown:
		return fmt.Sprintf("link %s has a carrier but is %s", attrs.Name, state)
	case !hasCarrier && (state == netlink.OperUp || isUp && state == netlink.OperUnknown):
		return fmt.Sprintf("link %s has no carrier but is %s", attrs.Name, state)
	}
	return ""
}

// unrouted names an IPv6 address of a link that is up to which there is no local route
// yet, in the table local or in that of a VRF: the kernel makes it some time after the
// address.
func unrouted(links []netlink.Link, addrs []netlink.Addr) (string, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return "routes are changing", nil
	}
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	for _, addr := range addrs {
		isUp := slices.ContainsFunc(links, func(l netlink.Link) bool {
			return l.Attrs().Index == addr.LinkIndex && l.Attrs().RawFlags&unix.IFF_UP != 0
		})
		if isUp && !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(addr.IP) }) {
			return fmt.Sprintf("there is no local route to %s", addr.IP), nil
		}
	}
	return "", nil
}
