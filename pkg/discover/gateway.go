package discover

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// resolution is how long an IPv6 gateway may take to say its MAC: the kernel
// asks three times, a second apart (RFC 4861 section 10).
const resolution = 3 * time.Second

// discardPort is the destination of the datagram that makes the kernel resolve
// the gateway (RFC 863). None is sent before the MAC is known.
const discardPort = 9

// resolveGateways fills in Gateway6 of the interfaces that need it and are not
// recorded. A gateway that does not answer is no error: the VM can do without
// IPv6 rather than not start.
func resolveGateways(ctx context.Context, conn *nl.Conn, interfaces []Interface, o Options) error {
	for i, in := range interfaces {
		gateway := WidestGateway(slices.DeleteFunc(in.PodRoutes(), func(r Route) bool { return !r.Destination.Addr().Is6() || r.From.IsValid() }))
		if _, has := in.IPv6(); isRecorded(in, o) || !gateway.IsValid() || !has {
			continue
		}
		mac, err := resolve(ctx, conn, in, gateway)
		if ctx.Err() != nil {
			return fmt.Errorf("resolve gateway %s: %w", gateway, context.Cause(ctx))
		}
		if err != nil {
			o.Log.Warn("the IPv6 gateway does not answer, so the VM gets no IPv6 routes", "interface", in.Name, "gateway", gateway, "error", err)
			continue
		}
		interfaces[i].Gateway6 = &Neighbor{Address: gateway, MAC: mac}
	}
	return nil
}

// resolve has the kernel ask for the MAC of a neighbour and waits for it.
func resolve(ctx context.Context, conn *nl.Conn, in Interface, address netip.Addr) (mac.Addr, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, resolution, fmt.Errorf("no answer within %s", resolution))
	defer cancel()
	events, err := nl.Subscribe(unix.RTNLGRP_NEIGH)
	if err != nil {
		return mac.Addr{}, err
	}
	defer events.Close()
	for asked := false; ; {
		var found mac.Addr
		err := conn.Messages(unix.RTM_GETNEIGH, func(m []byte) {
			link, state, n := newNeighbor(m)
			if link == in.Index && n.Address == address && state&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) == 0 {
				found = n.MAC
			}
		})
		if err != nil || !found.IsZero() {
			return found, err
		}
		if !asked {
			if err := knock(address, in); err != nil {
				return mac.Addr{}, err
			}
			asked = true
		}
		if err := events.Wait(ctx); err != nil {
			return mac.Addr{}, err
		}
	}
}

// knock sends an empty datagram by the interface, whatever the routes by others,
// for which the kernel must know the MAC.
func knock(address netip.Addr, in Interface) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.BindToDevice(fd, in.Name); err != nil {
		return fmt.Errorf("bind socket to %s: %w", in.Name, err)
	}
	to := &unix.SockaddrInet6{Port: discardPort, Addr: address.As16()}
	if address.IsLinkLocalUnicast() {
		to.ZoneId = uint32(in.Index)
	}
	if err := unix.Sendto(fd, nil, unix.MSG_DONTWAIT, to); err != nil {
		return fmt.Errorf("send to %s: %w", address, err)
	}
	return nil
}
