package agent

import (
	"context"
	"errors"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// detach lets go of a NIC, and with the last one of the pod.
func (a *Agent) detach(ctx context.Context, container, name string) error {
	a.mu.Lock()
	p := a.pods[container]
	a.mu.Unlock()
	if p == nil {
		return nil
	}
	p.work.Lock()
	defer p.work.Unlock()
	a.mu.Lock()
	n := p.nics[name]
	delete(p.nics, name)
	last := len(p.nics) == 0
	a.mu.Unlock()
	if n == nil {
		return nil
	}
	if n.retry != nil {
		n.retry.Stop()
	}
	if last {
		a.remove(ctx, p)
		return nil
	}
	if p.session == nil {
		return nil
	}
	if err := p.session.Remove(name); err != nil && !isNotFound(err) {
		return err
	}
	return nil
}

// dropNICs forgets the NICs of a pod, which is being worked on.
func (a *Agent) dropNICs(p *pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, n := range p.nics {
		if n.retry != nil {
			n.retry.Stop()
		}
		delete(p.nics, name)
	}
}

// closeSession ends serving the NICs of a pod, which is being worked on.
func (a *Agent) closeSession(ctx context.Context, p *pod) {
	if p.session == nil {
		return
	}
	if err := p.session.Close(ctx); err != nil {
		a.log.Warn("stopped serving a pod, with an error", "namespace", p.name.Namespace, "pod", p.name.Name, "error", err)
	}
	a.mu.Lock()
	p.session = nil
	a.mu.Unlock()
}

// remove lets go of a pod, which is being worked on.
func (a *Agent) remove(ctx context.Context, p *pod) {
	defer a.changed()
	a.dropNICs(p)
	a.closeSession(ctx, p)
	a.mu.Lock()
	p.gone = true
	delete(a.pods, p.id)
	a.mu.Unlock()
}

func isNotFound(err error) bool {
	_, ok := errors.AsType[*discover.NotFoundError](err)
	return ok
}
