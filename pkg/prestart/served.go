package prestart

import (
	"cmp"
	"fmt"
	"log/slog"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// HandOver writes the files in OutputDir for the NICs that a server says it serves, for a
// launcher in a pod that a node's plugin has prepared: none of the pod's containers can
// read the records. It looks at nothing else.
func (h Hook) HandOver(status control.Status) error {
	h.Log = cmp.Or(h.Log, slog.New(slog.DiscardHandler))
	if _, err := h.canHandOver(); err != nil {
		return err
	}
	var all []Interface
	h.PerInterface = map[string]InterfaceOptions{}
	for _, s := range status.Interfaces {
		if s.Guest == nil {
			return fmt.Errorf("write NICs: the server does not say what the VM's NIC of %s is: it is another version of this program", s.Name)
		}
		if err := s.Guest.Validate(); err != nil {
			return fmt.Errorf("write NICs: %w", err)
		}
		all = append(all, newInterface(*s.Guest))
		h.PerInterface[s.Name] = InterfaceOptions{Model: s.Model}
	}
	return h.handOver(all, h.domainNICs(guestSides(all)))
}

// guestSide is the NIC in a status; of another version of this program only its name.
func guestSide(s control.Served) guest.NIC {
	if s.Guest == nil {
		return guest.NIC{Interface: s.Name}
	}
	return *s.Guest
}
