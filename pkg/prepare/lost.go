package prepare

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
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
	records, unusable, err := readRecords(dir)
	if err != nil {
		return nil, err
	}
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var s state
	if s.links, err = conn.Links(); err != nil {
		return nil, err
	}
	names, why := s.podInterfaces(), map[string]string{}
	for _, u := range unusable {
		names[u.name()] = true
		why[u.name()] = fmt.Sprintf("its record %s can't be used: %v: what the CNI had given it is lost with the record: make the pod anew", u.path, u.why)
	}
	for _, r := range records {
		if r.Namespace.Same(current) {
			delete(names, r.Plan.Interface.Name)
		}
	}
	var out []*LostError
	for _, name := range slices.Sorted(maps.Keys(names)) {
		_, damaged := why[name]
		made := s.madeFor(name)
		prepared := len(made) >= 2 || len(made) == 1 && s.hasPlaceholder(name) || damaged && s.looksPrepared(name)
		if !prepared {
			continue
		}
		if !damaged {
			why[name] = fmt.Sprintf("there is no record of it in %s: name the state directory that was used then "+
				"(if none was named, and the network namespace was, it was one below %s of where that ran); if that is lost, so is what the CNI had given it: make the pod anew", dir, DefaultStateDir)
		}
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

// podInterfaces are the names that pod interfaces may have had.
func (s state) podInterfaces() map[string]bool {
	names := map[string]bool{}
	for _, l := range s.links {
		names[l.Name] = true
		names[strings.TrimPrefix(l.Name, "br-")] = true // it may have no placeholder yet
	}
	return names
}

// madeFor returns the links that look as if they were made for the VM of the
// interface of that name.
func (s state) madeFor(name string) (made []string) {
	if l := s.link(linkName("br-", name)); l != nil && l.Kind == "bridge" {
		made = append(made, l.Name)
	}
	if l := s.link(linkName("up-", name)); l != nil {
		made = append(made, l.Name)
	}
	if l := s.link(linkName("tap-", name)); l != nil && l.Tun != nil {
		made = append(made, l.Name)
	}
	return made
}

// hasPlaceholder tells whether a bridge, as a placeholder is one, has the name.
func (s state) hasPlaceholder(name string) bool {
	l := s.link(name)
	return l != nil && l.Kind == "bridge"
}

// asByCNI tells whether an interface is there as a CNI leaves it.
func (s state) asByCNI(name string) bool {
	return s.link(name) != nil && !s.hasPlaceholder(name)
}

// looksPrepared tells whether an interface of that name is there, or what is made
// for its VM, and it is not as a CNI leaves it.
func (s state) looksPrepared(name string) bool {
	return !s.asByCNI(name) && (s.hasPlaceholder(name) || len(s.madeFor(name)) > 0)
}

// name is the interface's whose record it was.
func (u useless) name() string { return nameOf(u.path) }
