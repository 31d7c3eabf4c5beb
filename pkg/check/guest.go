package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// resendAfter is how long the first answer may take before a question is
// repeated.
const resendAfter = 200 * time.Millisecond

// guestEnd is the guest's end of the tap.
type guestEnd struct {
	file *os.File
	mac  mac.Addr
}

func openGuest(n guest.NIC) (*guestEnd, error) {
	inUse, err := tun.InUse(n.Tap)
	var file *os.File
	if err == nil && !inUse {
		file, err = tun.Open(n.Tap, n.Queues)
	}
	if inUse || errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("open tap %s: %w", n.Tap, ErrTapInUse)
	}
	if err != nil {
		return nil, err
	}
	return &guestEnd{file: file, mac: n.MAC}, nil
}

// Close leaves the tap to the guest.
func (g *guestEnd) Close() error { return g.file.Close() }

// discover asks for a lease and returns the address that is offered.
func (g *guestEnd) discover(ctx context.Context) (address netip.Addr, err error) {
	xid := dhcpv4.TransactionID(binary.NativeEndian.AppendUint32(nil, rand.Uint32()))
	err = g.ask(ctx, probe.Discover(g.mac, xid), func(frame []byte) bool {
		m, err := probe.ParseDHCP(frame)
		if err != nil || m.TransactionID != xid {
			return false
		}
		address, _ = netip.AddrFromSlice(m.YourIPAddr.To4())
		return m.MessageType() == dhcpv4.MessageTypeOffer
	})
	return address, err
}

// solicit asks for an IPv6 address and returns what is offered.
func (g *guestEnd) solicit(ctx context.Context) (address netip.Addr, err error) {
	id := dhcpv6.TransactionID{byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}
	err = g.ask(ctx, probe.Solicit(g.mac, id), func(frame []byte) bool {
		m, err := probe.ParseDHCPv6(frame)
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

// solicitRouter asks who the router is, and returns when the one of the NIC has said
// so; if it has none, whoever tells of its network.
func (g *guestEnd) solicitRouter(ctx context.Context, router *guest.Router) error {
	return g.ask(ctx, probe.RouterSolicitation(g.mac, g.mac.LinkLocal()), func(frame []byte) bool {
		from, err := probe.ParseRouterAdvertisement(frame)
		return err == nil && (router == nil || from == router.LinkLocal)
	})
}

// resolve asks for a neighbor's MAC (RFC 826, RFC 4861 section 7.2), from the address
// whose packets the guest would have for it.
func (g *guestEnd) resolve(ctx context.Context, own, neighbor netip.Addr) (at mac.Addr, err error) {
	question, parse := packet.ARPRequest, packet.ParseARPReply
	if neighbor.Is6() {
		question, parse = probe.NeighborSolicitation, probe.ParseNeighborAdvertisement
	}
	err = g.ask(ctx, question(g.mac, own, neighbor), func(frame []byte) bool {
		of, address, err := parse(frame)
		at = address
		return err == nil && of == neighbor
	})
	return at, err
}

// ask sends a frame, again and again if need be, until isAnswer says yes to one
// that came back, or ctx ends.
func (g *guestEnd) ask(ctx context.Context, frame []byte, isAnswer func([]byte) bool) error {
	stop := context.AfterFunc(ctx, func() { _ = g.file.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	question := append(make([]byte, tun.VNetHeader), frame...)
	buf := make([]byte, tun.VNetHeader+1<<16)
	for wait := resendAfter; ; wait *= 2 {
		if _, err := g.file.Write(question); err != nil && ctx.Err() != nil {
			return fmt.Errorf("no answer: %w", context.Cause(ctx)) // whose end ended the write, too
		} else if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if err := g.file.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for ctx.Err() == nil {
			n, err := g.file.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			if n > tun.VNetHeader && isAnswer(buf[tun.VNetHeader:n]) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
	}
}
