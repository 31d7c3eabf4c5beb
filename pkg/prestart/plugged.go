package prestart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/google/renameio/v2"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// An interface that is plugged into a session is the VM's from then on, though the next
// session is not told of it. A file beside its record says so, with the options that it
// was plugged with. It counts as long as there is the record.

// maxPlugged bounds such a file: options have texts of some hundred bytes.
const maxPlugged = 1 << 20

func pluggedPath(dir, name string) string { return filepath.Join(dir, name+".plugged") }

// remember writes that file: nothing if these are no options of a plug.
func (h Hook) remember(name string, o *InterfaceOptions) error {
	if o == nil {
		return nil
	}
	b, err := json.MarshalIndent(o, "", "  ")
	if err == nil {
		err = renameio.WriteFile(pluggedPath(h.StateDir, name), append(b, '\n'), 0o600, renameio.WithTempDir(h.StateDir))
	}
	if err != nil {
		return fmt.Errorf("write options of plugged interface: %w", err)
	}
	return nil
}

// forget removes the file, if there is one.
func (h Hook) forget(name string) error {
	if err := os.Remove(pluggedPath(h.StateDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove options of plugged interface: %w", err)
	}
	return nil
}

// withPlugged is h with those recorded interfaces that were plugged into an earlier
// session, and their names: all if h resumes that, else those that h is about anyway.
// They have the options that they were plugged with, and the ports that they have now,
// unless h names some for them. A Prepare that names the interface and has options for
// all means that one, too: else it would be done, and nothing would have changed.
func (h Hook) withPlugged(recorded []prepare.Plan) (_ Hook, plugged []string, err error) {
	h.Interfaces, h.PerInterface = slices.Clone(h.Interfaces), maps.Clone(h.PerInterface)
	for _, p := range recorded {
		name := p.Interface.Name
		named := len(h.Interfaces) == 0 || slices.Contains(h.Interfaces, name)
		if !named && !h.resume {
			continue
		}
		o, err := h.readPlugged(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return h, nil, fmt.Errorf("%w: restore %s, or remove the file", err, name)
		}
		plugged = append(plugged, name)
		if !named {
			h.Interfaces = append(h.Interfaces, name)
		}
		if _, has := h.PerInterface[name]; has {
			continue
		}
		switch forAll := !reflect.DeepEqual(h.Network, prepare.Options{}); {
		case !h.resume && forAll && slices.Contains(h.Interfaces, name):
			o.Network = nil
		case o.Network != nil:
			o.Network.PodPorts, o.Network.VMPorts = p.Ports() // a Prepare may have changed them
		}
		h.setOptions(name, o)
	}
	return h, plugged, nil
}

// withoutGone are the recorded plans without those of interfaces that were plugged in and
// that the CNI has taken away since: a VM can start without them. What is left of one is
// removed, unless a VM has its tap open.
func (h Hook) withoutGone(ctx context.Context, store *prepare.Store, recorded []prepare.Plan) (left []prepare.Plan, err error) {
	if len(recorded) == 0 {
		return nil, nil
	}
	now, err := discover.ReadInterfaces()
	if err != nil {
		return nil, err
	}
	for _, p := range recorded {
		name := p.Interface.Name
		is := func(i discover.Interface) bool { return i.Index == p.Interface.Index }
		if _, err := h.readPlugged(name); errors.Is(err, fs.ErrNotExist) || slices.ContainsFunc(now, is) {
			left = append(left, p)
			continue
		}
		h.Log.Warn("an interface that was plugged in is gone from the pod: it is left out", "interface", name)
		err := h.unused(ctx, p.NIC())
		if err == nil {
			err = prepare.Restore(ctx, h.Log, store, name)
		}
		if err != nil {
			h.Log.Warn("what is left of the interface could not be removed", "interface", name, "error", err)
		}
	}
	return left, nil
}

func (h Hook) readPlugged(name string) (o InterfaceOptions, err error) {
	path := pluggedPath(h.StateDir, name)
	b, err := statedir.ReadFile(path, maxPlugged)
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		err = fmt.Errorf("read options of plugged interface from %s: %w", path, err)
	}
	return o, err
}

// setOptions sets those of one interface. The map is h's own.
func (h *Hook) setOptions(name string, o InterfaceOptions) {
	if h.PerInterface == nil {
		h.PerInterface = map[string]InterfaceOptions{}
	}
	h.PerInterface[name] = o
}
