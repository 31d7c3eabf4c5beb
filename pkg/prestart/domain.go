package prestart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Defaults of a [Domain].
const (
	DefaultStartTimeout    = time.Minute
	DefaultShutdownTimeout = 30 * time.Second
)

// Domain is a libvirt domain to run.
type Domain struct {
	// XML is its definition; the pod's NICs are put in.
	XML []byte
	// URI is libvirt's; empty: qemu:///system.
	URI string
	// StartTimeout is how long libvirt may take to answer and to start the
	// VM; 0: [DefaultStartTimeout].
	StartTimeout time.Duration
	// ShutdownTimeout is how long the guest may take to shut down before it
	// is destroyed; 0: [DefaultShutdownTimeout].
	ShutdownTimeout time.Duration
}

// NICs returns the guest's sides of the interfaces, the primary one first, ready
// for [domain.Attach], [domain.QEMUArgs] and their like.
func (s *Session) NICs() []domain.NIC {
	return each(s.current(), (*nic).domainNIC)
}

// NICs returns the guest's sides of the prepared interfaces, as [Session.NICs]
// does, or what they will be once they are prepared with the same options. It
// changes nothing.
func (h Hook) NICs(ctx context.Context) ([]domain.NIC, error) {
	return inPod(h, func(h Hook) ([]domain.NIC, error) {
		h, plans, err := h.preparedOrPlanned(ctx)
		return each(plans, h.domainNICOf), err
	})
}

// Attach returns the domain's XML with the pod's NICs in it, as [domain.Attach]
// puts them in: those of the prepared interfaces, or what they will be once they
// are prepared with the same options. It changes nothing else. Other NICs of the
// domain stay; the log warns of each that will not work in the pod, which
// [domain.Foreign] tells as well.
func (h Hook) Attach(ctx context.Context, xml []byte) ([]byte, error) {
	return inPod(h, func(h Hook) ([]byte, error) {
		h, plans, err := h.preparedOrPlanned(ctx)
		if err != nil {
			return nil, err
		}
		return h.attach(xml, plans)
	})
}

// preparedOrPlanned acts in the current network namespace. It returns h with the options
// of interfaces that were plugged in, too.
func (h Hook) preparedOrPlanned(ctx context.Context) (Hook, []prepare.Plan, error) {
	plans, err := h.prepared()
	if errors.Is(err, ErrNotPrepared) {
		plans, err = h.plansOf(ctx)
	}
	if err == nil {
		h, _, err = h.withPlugged(plans)
	}
	return h, plans, err
}

// domainNICs are NICs with the models that they have in the VM.
func (h Hook) domainNICs(nics []guest.NIC) []domain.NIC { return each(nics, h.domainNIC) }

// domainNICOf is that of a plan, which says whether the pod shares the network.
func (h Hook) domainNICOf(p prepare.Plan) domain.NIC {
	n := h.domainNIC(p.NIC())
	n.Shared = p.Shared()
	return n
}

// domainNIC is the guest's side. Without a record it is not known whether the pod shares
// the network.
func (n *nic) domainNIC() domain.NIC {
	if plan := n.plan.Load(); plan != nil {
		return n.hook.domainNICOf(*plan)
	}
	return n.hook.domainNIC(n.NIC)
}

func (h Hook) domainNIC(n guest.NIC) domain.NIC {
	return domain.NIC{Interface: n.Interface, Tap: n.Tap, MAC: n.MAC, MTU: n.MTU, Queues: n.Queues, Model: h.modelOf(n.Interface)}
}

// attach returns the domain's XML with the NICs of the interfaces in it. It acts in
// the current network namespace, to warn of NICs that will not work there.
func (h Hook) attach(xml []byte, plans []prepare.Plan) ([]byte, error) {
	nics := each(plans, h.domainNICOf)
	out, err := domain.Attach(xml, nics...)
	if err != nil {
		return nil, fmt.Errorf("attach NICs: %w", err)
	}
	interfaces, err := discover.ReadInterfaces()
	if err != nil {
		return nil, err
	}
	devices := interfacesOf(interfaces)
	for _, p := range plans {
		for _, link := range p.Links() { // they may be yet to come
			devices = append(devices, link.Name)
		}
	}
	foreign, err := domain.Foreign(xml, devices, nics...)
	if err != nil {
		return nil, fmt.Errorf("look for other NICs: %w", err)
	}
	for _, f := range foreign {
		if f.Problem != "" {
			h.Log.Warn("the domain has a NIC that will not work in the pod", "nic", f.Name, "problem", f.Problem, "remedy", f.Remedy)
		}
	}
	return out, nil
}
