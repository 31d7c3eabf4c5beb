package prepare

import (
	"errors"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// errZero is that something is to be done by the zero Plan.
var errZero = errors.New("the plan is of no interface: make it by NewPlan")

// checkZero refuses the zero Plan.
func checkZero(plans ...Plan) error {
	for _, p := range plans {
		if p.wiring == nil {
			return errZero
		}
	}
	return nil
}

// wired is how the interface is wired; that of the zero Plan is not.
func (p Plan) wired() engine.Wiring {
	if p.wiring == nil {
		return unwired{}
	}
	return p.wiring
}

// unwired is the wiring of no interface.
type unwired struct{ engine.Base }

func (unwired) Links() []engine.Link                      { return nil }
func (unwired) Tables() []nft.Table                       { return nil }
func (unwired) Apply(*engine.State) (engine.Steps, error) { return engine.Steps{}, errZero }
func (unwired) Restore(*engine.State) (engine.Steps, []string, error) {
	return engine.Steps{}, nil, errZero
}
func (unwired) Differences(*engine.State) []engine.Difference { return nil }
func (unwired) Forwards(*engine.State) error                  { return errZero }
