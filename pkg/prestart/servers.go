package prestart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// leaseServer is what the servers of DHCPv4 and DHCPv6 have in common.
type leaseServer interface {
	Serve(ctx context.Context) error
	Status() lease.Status
	Wait(ctx context.Context, until func(lease.Status) bool) (lease.Status, error)
	Events(ctx context.Context) <-chan lease.Event
	Resume(was lease.Status)
}

// servers are those on one tap; nil is one that there is nothing for.
type servers struct {
	plan   prepare.Plan
	lease  leaseServer // DHCPv4
	lease6 leaseServer // DHCPv6
	router *ra.Server
	conns  []io.Closer
	// omitted is what the VM does not get of what the pod has.
	omitted []discover.Omission
	// unheard is whether a VM was there when the servers were opened, of whose lease
	// nothing was kept.
	unheard bool
}

// canServe reports why no socket can be opened, in the current network namespace,
// on a tap that is yet to be made. A raw socket needs the capability that packet
// sockets do (packet(7), raw(7)), and is closed at once: those wait for all
// processors (packet_release, net/packet/af_packet.c).
func canServe() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return rawAdvice(fmt.Errorf("open raw socket: %w", err))
	}
	return unix.Close(fd)
}

// openServers opens sockets on the tap, in the current network namespace. On
// error there are none.
func (h Hook) openServers(p prepare.Plan, pod discover.Pod, defaultRoute defaultRoutes) (_ *servers, err error) {
	s := &servers{plan: p}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("serve %s: %w", p.Interface.Name, rawAdvice(err)), s.close())
		}
	}()
	l := h.leaseOf(p.Interface.Name).leases(p.NIC(), pod, defaultRoute)
	s.omitted = l.omitted
	if l.ipv4 != nil {
		server, err := dhcp.NewServer(p.Tap.Name, *l.ipv4, h.Log)
		if err != nil {
			return nil, err
		}
		s.conns = append(s.conns, server)
		s.lease = server
		s.unheard = h.recall(p, ".lease", server)
	}
	if l.ipv6 != nil {
		server, err := dhcp6.NewServer(p.Tap.Name, *l.ipv6, h.Log)
		if err != nil {
			return nil, err
		}
		s.conns = append(s.conns, server)
		s.lease6 = server
		if unheard := h.recall(p, ".lease6", server); s.lease == nil {
			s.unheard = unheard
		}
		if s.router, err = ra.NewServer(p.Tap.Name, p.MAC, *l.advertisement, h.Log); err != nil {
			return nil, err
		}
		s.conns = append(s.conns, s.router)
	}
	for _, o := range s.omitted {
		h.Log.Warn("left out of what the VM is given", "interface", p.Interface.Name, "what", o.What, "why", o.Why)
	}
	if len(s.conns) == 0 {
		h.Log.Info("no address to lease: the VM is bridged through", "interface", p.Interface.Name)
	}
	return s, nil
}

// rawAdvice says what is missing where a packet socket is refused.
func rawAdvice(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: this needs the capability NET_RAW (securityContext.capabilities.add: [NET_RAW])", err)
	}
	return err
}

// serve sets the servers going, until ctx ends.
func (s *servers) serve(ctx context.Context, running *errgroup.Group, h Hook) {
	for suffix, server := range map[string]leaseServer{".lease": s.lease, ".lease6": s.lease6} {
		if server == nil {
			continue
		}
		events := server.Events(ctx)
		running.Go(func() error {
			h.remember(s.plan, suffix, server, events)
			return nil
		})
		running.Go(func() error { return tapAdvice(server.Serve(ctx)) })
	}
	if s.router != nil {
		running.Go(func() error { return tapAdvice(s.router.Serve(ctx)) })
	}
}

// tapAdvice says what to do where the tap was deleted under a server.
func tapAdvice(err error) error {
	if errors.Is(err, lease.ErrGone) { // which is that of the other servers, too
		return fmt.Errorf("%w: %w", err, prepare.ErrTapMissing)
	}
	return err
}

func (s *servers) close() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// main is the server whose lease a guest has if it has its addresses: the IPv4 one if
// there is one, since not every guest asks for an IPv6 address. Nil: there is none.
func (s *servers) main() leaseServer {
	if s.lease != nil {
		return s.lease
	}
	return s.lease6
}

// waitForLease blocks until the guest has its address.
func (s *servers) waitForLease(ctx context.Context) error {
	server := s.main()
	if server == nil {
		return nil
	}
	_, err := server.Wait(ctx, func(st lease.Status) bool { return st.State == lease.Bound })
	return err
}
