package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// booting is a guest that boots.
type booting struct {
	client
	ip netip.Addr
}

// bootAll has all guests of the pods ask for their leases at once, and returns how long
// each of them took.
func bootAll(pods []*pod) (took []float64, err error) {
	guests := make([]*booting, len(pods))
	defer func() {
		for _, g := range guests {
			if g != nil {
				err = errors.Join(err, g.close())
			}
		}
	}()
	poll := make([]unix.PollFd, len(pods))
	for i, p := range pods {
		g := &booting{client: client{fd: -1, mac: p.mac}, ip: p.ip.Addr()}
		guests[i] = g
		if err := p.ns.Do(func() (err error) { g.fd, err = openTap("tap-"+podLink, 0); return err }); err != nil {
			return nil, err
		}
		poll[i] = unix.PollFd{Fd: int32(g.fd), Events: unix.POLLIN}
	}
	time.Sleep(100 * time.Millisecond) // until the kernel has told of each carrier
	begun := time.Now()
	for _, g := range guests {
		if err := g.say(dhcpv4.MessageTypeDiscover, nil); err != nil {
			return nil, err
		}
	}
	for left := len(guests); left > 0; {
		if n, err := unix.Poll(poll, 10_000); n == 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("%d of %d guests get no lease", left, len(guests)), err)
		}
		for i, g := range guests {
			if poll[i].Revents == 0 {
				continue
			}
			done, err := g.hear()
			if err != nil {
				return nil, err
			}
			if done {
				left--
				took = append(took, millis(time.Since(begun)))
			}
		}
	}
	return took, nil
}

// say sends a message; server is that of the offer that is taken.
func (g *booting) say(kind dhcpv4.MessageType, server net.IP) error {
	options := []dhcpv4.Option{dhcpv4.OptMessageType(kind)}
	if server != nil {
		options = append(options, dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(g.ip.AsSlice()))
	}
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: g.mac, Options: dhcpv4.OptionsFromList(options...)}
	return g.send(m.ToBytes(), 1)
}

// hear reads one frame, and reports whether it is the one that gives the lease.
func (g *booting) hear() (done bool, err error) {
	reply, err := g.receive(time.Millisecond)
	if errors.Is(err, errTimeout) { // it was another frame
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch messageType(reply) {
	case dhcpv4.MessageTypeOffer:
		m, err := dhcpv4.FromBytes(reply)
		if err != nil {
			return false, fmt.Errorf("parse offer: %w", err)
		}
		return false, g.say(dhcpv4.MessageTypeRequest, m.ServerIdentifier())
	case dhcpv4.MessageTypeAck:
		if got := netip.AddrFrom4([4]byte(reply[16:20])); got != g.ip {
			return false, fmt.Errorf("the guest of %s is given %s", g.ip, got)
		}
		return true, nil
	}
	return false, nil
}
