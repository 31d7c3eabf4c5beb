package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// site is a node with many pods on its bridges, as flannel leaves them.
type site struct {
	node *podtest.NS
	pods []*pod
	dir  string
	used int
}

// pod is one of them, with a directory for what a program keeps.
type pod struct {
	ns      *podtest.NS
	dir     string
	mac     net.HardwareAddr
	ip      netip.Prefix
	gateway netip.Addr
}

const podLink = "eth0"

// podsPerBridge is about as many as a node has at most: with more, each frame
// to all would cost more.
const podsPerBridge = 100

// atWork is how many pods are built at a time.
const atWork = 8

func newSite(ctx context.Context, pods int) (_ *site, err error) {
	s := &site{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build %d pods: %w", pods, err), s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("/dev/shm", "bench-"); err != nil { // as /run: in memory
		return nil, err
	}
	if s.node, err = podtest.NewNS(); err != nil {
		return nil, err
	}
	var lines []string
	for i := range pods {
		bridge := fmt.Sprintf("cni%d", i/podsPerBridge)
		p, err := s.add(i)
		if err != nil {
			return nil, err
		}
		if i%podsPerBridge == 0 {
			lines = append(lines, "link add "+bridge+" type bridge", fmt.Sprintf("addr add %s/24 brd + dev %s", p.gateway, bridge), "link set "+bridge+" up")
		}
		lines = append(lines,
			fmt.Sprintf("link add veth%d mtu 1450 type veth peer name %s address %s mtu 1450 netns %s", i, podLink, p.mac, p.ns.Path()),
			fmt.Sprintf("link set veth%d master %s up", i, bridge))
	}
	if err := s.node.Batch(ctx, lines...); err != nil {
		return nil, err
	}
	err = s.each(func(p *pod) error {
		return p.ns.Batch(ctx, "addr add "+p.ip.String()+" brd + dev "+podLink, "link set "+podLink+" up",
			"route add default via "+p.gateway.String(), "route add 10.244.0.0/16 via "+p.gateway.String())
	})
	if err != nil {
		return nil, err
	}
	return s, s.each(func(p *pod) error { return podtest.WaitSettled(ctx, p.ns) })
}

// add makes a pod's namespace.
func (s *site) add(i int) (*pod, error) {
	ip := netip.AddrFrom4([4]byte{10, 244, byte(i / podsPerBridge), byte(i%podsPerBridge + 2)})
	p := &pod{
		dir: filepath.Join(s.dir, fmt.Sprint(i)),
		mac: append(net.HardwareAddr{0x0a, 0x58}, ip.AsSlice()...),
		ip:  netip.PrefixFrom(ip, 24), gateway: netip.AddrFrom4([4]byte{10, 244, byte(i / podsPerBridge), 1}),
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if p.ns, err = podtest.NewNS(); err != nil {
		return nil, err
	}
	s.pods = append(s.pods, p)
	// What the pod's IPv6 address goes through first is over long before.
	return p, p.ns.Sysctl("net/ipv6/conf/default/accept_dad", "0")
}

func (s *site) each(fn func(*pod) error) error {
	var all errgroup.Group
	all.SetLimit(atWork)
	for _, p := range s.pods {
		all.Go(func() error { return fn(p) })
	}
	return all.Wait()
}

// take returns pods that nobody had before.
func (s *site) take(n int) []*pod {
	s.used += n
	return s.pods[s.used-n : s.used]
}

// close ends what is left in the pods, and waits until the kernel has taken
// their links away: it does so under the lock that preparing needs.
func (s *site) close() error {
	errs := []error{killAll(s.pods)}
	for _, p := range s.pods {
		errs = append(errs, p.ns.Close())
	}
	if s.node != nil {
		errs = append(errs, s.waitGone(), s.node.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

func (s *site) waitGone() error {
	for deadline := time.After(time.Minute); ; {
		gone, err := s.watchLinks(deadline)
		if gone || err != nil {
			return err
		}
	}
}

// watchLinks tells whether the links to the pods are gone. If there were
// more events than the kernel keeps, it has to be asked again.
func (s *site) watchLinks(deadline <-chan time.Time) (gone bool, err error) {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	options := netlink.LinkSubscribeOptions{ReceiveBufferSize: 16 << 20, ReceiveBufferForceSize: true}
	if err := s.node.Do(func() error { return netlink.LinkSubscribeWithOptions(updates, done, options) }); err != nil {
		return false, fmt.Errorf("subscribe to links: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // its sender waits for a reader
		}
	}()
	left, err := s.links()
	if err != nil {
		return false, err
	}
	for len(left) > 0 {
		select {
		case u, ok := <-updates:
			if !ok {
				return false, nil
			}
			// A port that leaves a bridge has the same message, in another family.
			if u.Header.Type == unix.RTM_DELLINK && u.Family == unix.AF_UNSPEC {
				delete(left, u.Index)
			}
		case <-deadline:
			return false, fmt.Errorf("the links of %d pods do not go away", len(left))
		}
	}
	return true, nil
}

// links returns the indexes of the node's ends of the pods' links.
func (s *site) links() (map[int32]bool, error) {
	var links []netlink.Link
	err := s.node.Do(func() (err error) {
		for links, err = netlink.LinkList(); errors.Is(err, netlink.ErrDumpInterrupted); {
			links, err = netlink.LinkList()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	left := map[int32]bool{}
	for _, l := range links {
		if l.Type() == "veth" {
			left[int32(l.Attrs().Index)] = true
		}
	}
	return left, nil
}

func (p *pod) args(verb ...string) []string {
	return append(verb, "--state-dir", filepath.Join(p.dir, "state"), "--log-level", "error")
}
