package prestart

import (
	"fmt"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
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

// nics are the guest's sides of the interfaces.
func (h Hook) nics(plans []prepare.Plan) []domain.NIC {
	var nics []domain.NIC
	for _, p := range plans {
		nics = append(nics, domain.NIC{
			Interface: p.Interface.Name, Tap: p.Tap.Name, MAC: []byte(p.MAC), MTU: p.MTU, Queues: p.Tap.Queues, Model: h.Model,
		})
	}
	return nics
}

func (h Hook) attach(xml []byte, plans []prepare.Plan) ([]byte, error) {
	out, err := domain.Attach(xml, h.nics(plans)...)
	if err != nil {
		return nil, fmt.Errorf("attach NICs: %w", err)
	}
	return out, nil
}
