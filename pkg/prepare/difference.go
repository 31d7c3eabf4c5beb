package prepare

import (
	"errors"
	"io/fs"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Difference is one thing of a prepared pod interface that is not as planned. Its fields:
//
//	Interface string // the pod interface
//	What      string // a link's name, or what else it is about
//	Is        string
//	Want      string
//	Remedy    string // the way out
//	Alias     bool   // it is what the pod's aliases take at the tap
type Difference = engine.Difference

// Differences tells how the network namespace of the calling thread differs from
// the plans. Without the capability NET_ADMIN it does not see nftables tables, as the
// port guard is one.
func Differences(plans ...Plan) ([]Difference, error) {
	w, err := OpenWatch(plans...)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := w.Unwatched(); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	return w.Look()
}

// differencesOf looks at links, addresses and sysctls.
func differencesOf(s *engine.State, plans []Plan) (found []Difference) {
	seen := map[string]bool{} // sysctls
	for _, p := range plans {
		d := engine.Differences{Interface: p.Interface.Name, Found: p.wiring.Differences(s)}
		// One that nobody here may change is none: prepare warns of it.
		for _, name := range p.sysctls() {
			if value, ok := s.Sysctls[name]; ok && value != "0" && !seen[name] {
				seen[name] = true
				d.Add("sysctl "+name, value, "0", engine.PrepareAgain)
			}
		}
		found = append(found, d.Found...)
	}
	return found
}
