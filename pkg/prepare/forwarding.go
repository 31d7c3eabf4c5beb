package prepare

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// stateForwarding is BR_STATE_FORWARDING (linux/if_bridge.h).
const stateForwarding = 3

// WaitForwarding waits until frames pass between tap and uplink, or ctx ends.
// That is some time after a guest has opened the tap: the kernel notices the
// carrier later.
func (p Plan) WaitForwarding(ctx context.Context) error {
	events, err := nl.Subscribe(unix.RTNLGRP_LINK)
	if err != nil {
		return err
	}
	defer events.Close()
	conn, err := nl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		links, err := conn.Links()
		if err != nil {
			return err
		}
		waiting := p.notForwarding(state{links: links})
		if waiting == "" {
			return nil
		}
		if err := events.Wait(ctx); err != nil {
			return fmt.Errorf("wait for %s: %w", waiting, err)
		}
	}
}

// notForwarding names a port that does not forward, or says why there is none.
func (p Plan) notForwarding(s state) string {
	for _, name := range []string{p.Tap.Name, p.Bridge.Uplink} {
		l := s.link(name)
		switch {
		case l == nil:
			return name + ", which does not exist"
		case s.master(*l) != p.Bridge.Name:
			return name + ", which is no port of " + p.Bridge.Name
		case l.PortState != stateForwarding:
			return name + " to forward"
		}
	}
	return ""
}

func (p Plan) inUse(s state) bool {
	l := s.link(p.Tap.Name)
	return l != nil && (l.Carrier || l.Tun != nil && l.Tun.Queues > 0)
}
