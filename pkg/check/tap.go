package prestart

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// resendAfter is how long the first answer may take before a question is
// repeated.
const resendAfter = 200 * time.Millisecond

// seat is the guest's place at the tap.
type seat struct {
	file *os.File
	mac  net.HardwareAddr
}

// takeSeat opens the tap as QEMU does.
func takeSeat(p prepare.Plan) (*seat, error) {
	file, err := p.Tap.Open()
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("open tap %s: %w", p.Tap.Name, ErrTapInUse)
	}
	if err != nil {
		return nil, err
	}
	return &seat{file: file, mac: p.MAC.HardwareAddr()}, nil
}

// Close leaves the tap to the guest.
func (s *seat) Close() error { return s.file.Close() }

// discover asks for a lease.
func (s *seat) discover(ctx context.Context) (offer *dhcpv4.DHCPv4, err error) {
	xid := rand.Uint32()
	err = s.ask(ctx, dhcp.DiscoverFrame(s.mac, xid), func(frame []byte) bool {
		m, err := dhcp.ParseReplyFrame(frame)
		if err != nil || binary.BigEndian.Uint32(m.TransactionID[:]) != xid {
			return false
		}
		offer = m
		return m.MessageType() == dhcpv4.MessageTypeOffer
	})
	return offer, err
}

// solicit asks for an IPv6 address and returns what is offered.
func (s *seat) solicit(ctx context.Context) (address netip.Addr, err error) {
	id := dhcpv6.TransactionID{byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}
	err = s.ask(ctx, dhcp6.SolicitFrame(s.mac, id), func(frame []byte) bool {
		m, err := dhcp6.ParseReplyFrame(frame)
		if err != nil || m.TransactionID != id || m.Options.OneIANA() == nil {
			return false
		}
		offered := m.Options.OneIANA().Options.OneAddress()
		if offered == nil {
			return false
		}
		address, _ = netip.AddrFromSlice(offered.IPv6Addr)
		return true
	})
	return address, err
}

// solicitRouter asks who the router is, and returns when this one has said so.
func (s *seat) solicitRouter(ctx context.Context, router netip.Addr) error {
	question := ra.SolicitationFrame(s.mac, prepare.LinkLocal(mac.Of(s.mac)))
	return s.ask(ctx, question, func(frame []byte) bool {
		from, err := ra.ParseAdvertisementFrame(frame)
		return err == nil && from == router
	})
}

// resolve6 asks for a neighbour's MAC (RFC 4861 section 7.2), from the address
// whose packets the guest would have for it.
func (s *seat) resolve6(ctx context.Context, guest, neighbor netip.Addr) (address mac.Addr, err error) {
	err = s.ask(ctx, ra.NeighborSolicitationFrame(s.mac, guest, neighbor), func(frame []byte) bool {
		target, at, err := ra.ParseNeighborAdvertisementFrame(frame)
		address = mac.Of(at)
		return err == nil && target == neighbor
	})
	return address, err
}

// resolve asks for the gateway's MAC (RFC 826).
func (s *seat) resolve(ctx context.Context, guest, gateway netip.Addr) (address mac.Addr, err error) {
	err = s.ask(ctx, arpRequest(s.mac, guest, gateway), func(frame []byte) bool {
		// Ethernet header, then hardware and protocol type, lengths,
		// operation, sender's MAC and address, target's.
		const arp = 14
		if len(frame) < arp+28 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_ARP ||
			binary.BigEndian.Uint16(frame[arp+6:]) != 2 || !bytes.Equal(frame[arp+14:arp+18], gateway.AsSlice()) {
			return false
		}
		address = mac.Of(frame[arp+8 : arp+14])
		return true
	})
	return address, err
}

func arpRequest(mac net.HardwareAddr, from, to netip.Addr) []byte {
	frame := bytes.Repeat([]byte{0xff}, 6)
	frame = append(frame, mac...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
	frame = append(append(frame, mac...), from.AsSlice()...)
	return append(append(frame, 0, 0, 0, 0, 0, 0), to.AsSlice()...)
}

// ask sends a frame, again and again if need be, until isAnswer says yes to one
// that came back, or ctx ends.
func (s *seat) ask(ctx context.Context, frame []byte, isAnswer func([]byte) bool) error {
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	question := append(make([]byte, prepare.VNetHeader), frame...)
	buf := make([]byte, prepare.VNetHeader+1<<16)
	for wait := resendAfter; ; wait *= 2 {
		if _, err := s.file.Write(question); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if err := s.file.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for ctx.Err() == nil {
			n, err := s.file.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			if n > prepare.VNetHeader && isAnswer(buf[prepare.VNetHeader:n]) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
	}
}
