package prestart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// Run prepares the pod's network, serves it, proves the path from the guest's side
// and starts the domain if there is one. It returns when a guest could boot, or
// does. On error nothing of it is left: a pod that was not prepared before is as the
// CNI left it.
func (h Hook) Run(ctx context.Context) (*Session, error) {
	return inPod(h, func(h Hook) (*Session, error) {
		if err := canServe(); err != nil {
			return nil, err
		}
		s, err := h.newSession(ctx)
		if err != nil {
			return nil, err
		}
		h.resume = true
		p, err := h.prepare(ctx)
		if err != nil {
			return nil, errors.Join(err, s.Close(ctx))
		}
		s.hook = p.hook
		if err = s.open(ctx, p.pod, s.hook.nicsFor(p.plans, p.plugged...), p.recorded); err == nil {
			err = s.start(ctx, p.xml)
		}
		if err == nil {
			s.restore = h.RestoreAfter
			return s, nil
		}
		s.undo = func() error {
			err := h.withdraw(ctx, p)
			if h.RestoreAfter {
				err = errors.Join(err, s.hook.restoreAfter(context.WithoutCancel(ctx), p.plans, 0))
			}
			return err
		}
		return nil, errors.Join(err, s.Close(ctx))
	})
}

// Serve serves DHCP on these NICs of a pod that is prepared already, without its
// record: the network is then watched only as far as the tap goes. If none are given,
// it serves those of the record in the state directory. It returns once the servers
// listen.
func (h Hook) Serve(ctx context.Context, nics ...guest.NIC) (*Session, error) {
	return inPod(h, func(h Hook) (*Session, error) {
		h.Domain, h.Hotplug = nil, nil
		served, err := h.served(nics)
		if err != nil {
			return nil, err
		}
		pod, err := h.identity(ctx, served)
		if err != nil {
			return nil, err
		}
		recorded, err := h.recorded()
		if err != nil {
			return nil, err
		}
		s, err := h.newSession(ctx)
		if err != nil {
			return nil, err
		}
		if err := s.open(ctx, pod, served, recorded); err != nil {
			return nil, errors.Join(err, s.Close(ctx))
		}
		s.becomeReady(nil)
		s.restore = h.RestoreAfter
		return s, nil
	})
}

// served are the given NICs; if there are none, those that are recorded.
func (h Hook) served(nics []guest.NIC) ([]*nic, error) {
	if len(nics) == 0 {
		plans, err := h.prepared()
		if err != nil {
			return nil, err
		}
		h, plugged, err := h.withPlugged(plans)
		return h.nicsFor(plans, plugged...), err
	}
	if h.RestoreAfter {
		return nil, errors.New("serve without a record: the pod can't be restored at the end: let the program that prepared it do that")
	}
	var served []*nic
	owner := map[string]string{}
	for _, n := range nics {
		if err := errors.Join(n.Validate(), tun.Check(n.Tap)); err != nil { // on another link it would serve the pod's network
			return nil, err
		}
		for _, name := range []string{n.Interface, n.Tap} {
			if other, taken := owner[name]; taken {
				return nil, fmt.Errorf("serve %s: %s has the name %s already", n.Interface, other, name)
			}
			owner[name] = n.Interface
		}
		served = append(served, &nic{NIC: n.Clone(), hook: h})
	}
	return served, nil
}

// newSession takes the right to serve the current network namespace. The error says
// who else serves it, or listens in its state directory. Close gives the right back.
func (h Hook) newSession(ctx context.Context) (*Session, error) {
	serving, err := statedir.Serve(ctx)
	if err != nil {
		return nil, err
	}
	if err := control.CheckFree(ctx, h.StateDir); err != nil {
		serving.Close()
		return nil, err
	}
	s := &Session{hook: h, serving: serving, since: time.Now(), setting: make(chan struct{}, 1), changed: make(chan struct{}), readers: map[*reader]bool{}, notServed: map[string]error{}}
	s.done, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return s, nil
}
