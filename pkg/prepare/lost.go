package prepare

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// LostError is a pod interface that is prepared while there is no record of it
// that can be used: it can't be put back.
type LostError struct {
	Interface string   `json:"interface"`
	Links     []string `json:"links,omitempty"` // what there is of those that were made for its VM
	Why       string   `json:"why"`             // there is no record, or what is wrong with it
}

func (e *LostError) Error() string {
	evidence := ""
	if len(e.Links) > 0 {
		evidence = " (there are " + strings.Join(e.Links, ", ") + ")"
	}
	return e.Interface + " is prepared" + evidence + ", but " + e.Why
}

// ReadLost returns the interfaces of the calling thread's network namespace that
// are prepared, as links by their default names tell, and of which dir has no
// record that can be used.
func ReadLost(dir string) ([]*LostError, error) {
	current, err := statedir.Current()
	if err != nil {
		return nil, err
	}
	records, damagedOnes, err := readRecords(dir)
	if err != nil {
		return nil, err
	}
	s, err := engine.ReadLinks()
	if err != nil {
		return nil, err
	}
	names, why := podInterfaces(s), map[string]string{}
	for _, u := range damagedOnes {
		names[u.name()] = true
		why[u.name()] = fmt.Sprintf("its record %s can't be used: %v: without it the CNI's settings can't be restored: recreate the pod", u.path, u.why)
	}
	for _, r := range records {
		if r.Namespace.Same(current) {
			delete(names, r.Plan.Interface.Name)
		}
	}
	var out []*LostError
	for _, name := range slices.Sorted(maps.Keys(names)) {
		_, damaged := why[name]
		made := traces(s, name)
		if len(made) < 2 && (!damaged || !looksPrepared(s, name)) {
			continue
		}
		if !damaged {
			why[name] = fmt.Sprintf("%s has no record of it: name the state directory in which it was prepared "+
				"(one below %s if none was named, but a network namespace was); if that is lost, the CNI's settings can't be restored: recreate the pod", dir, DefaultStateDir)
		}
		made = slices.DeleteFunc(made, func(link string) bool { return link == name })
		out = append(out, &LostError{name, made, why[name]})
	}
	return out, nil
}

// unrecorded says which of the named interfaces there is no record of, or that
// there is none at all. It is an error if they are prepared nevertheless.
func (s *Store) unrecorded(log *slog.Logger, names []string, records []record) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(records, func(r record) bool { return r.Plan.Interface.Name == name })
	})
	if len(names) == 0 && len(records) > 0 {
		return nil
	}
	lost, err := ReadLost(s.Dir())
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range lost {
		if len(names) == 0 || slices.Contains(names, l.Interface) {
			errs = append(errs, fmt.Errorf("restore: %w", l))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, name := range names {
		log.Info("nothing to restore: the interface is not prepared", "interface", name)
	}
	if len(names) == 0 {
		log.Info("nothing to restore: no interface is recorded as prepared", "stateDir", s.Dir())
	}
	return nil
}

// podInterfaces are the names that pod interfaces may have had: of links, and of what
// the names of links that were made for them begin before.
func podInterfaces(s *engine.State) map[string]bool {
	names := map[string]bool{}
	for _, l := range s.Links {
		names[l.Name] = true
		if _, name, ok := strings.Cut(l.Name, "-"); ok {
			names[name] = true
		}
	}
	return names
}

// traces are the links that look as if they were made for the VM of the pod interface
// of that name.
func traces(s *engine.State, name string) (made []string) {
	for _, key := range slices.Sorted(maps.Keys(datapaths)) {
		for _, link := range datapaths[key].Traces(s, name) {
			if !slices.Contains(made, link) {
				made = append(made, link)
			}
		}
	}
	return made
}

// asByCNI tells whether an interface is there as a CNI leaves it.
func asByCNI(s *engine.State, name string) bool {
	return s.Link(name) != nil && !slices.Contains(traces(s, name), name)
}

// looksPrepared tells whether an interface of that name is there, or what is made
// for its VM, and it is not as a CNI leaves it.
func looksPrepared(s *engine.State, name string) bool {
	return !asByCNI(s, name) && len(traces(s, name)) > 0
}

// name is the interface's whose record it was.
func (u unusable) name() string { return nameOf(u.path) }
