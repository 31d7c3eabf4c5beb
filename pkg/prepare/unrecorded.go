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
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// UnrecordedError is a pod interface that is prepared while there is no record of it
// that can be used: it can't be put back.
type UnrecordedError struct {
	Interface string   `json:"interface"`
	Links     []string `json:"links,omitempty"` // what there is of those that were made for its VM
	Why       string   `json:"why"`             // there is no record, or what is wrong with it
	Remedy    string   `json:"remedy"`
}

func (e *UnrecordedError) Error() string {
	evidence := ""
	if len(e.Links) > 0 {
		evidence = " (there are " + strings.Join(e.Links, ", ") + ")"
	}
	return e.Interface + " is prepared" + evidence + ", but " + e.Why + ": " + e.Remedy
}

// ReadUnrecorded returns the interfaces of the calling thread's network namespace that
// are prepared, as links by their names and MACs tell, and of which dir has no record
// that can be used.
func ReadUnrecorded(dir string) ([]*UnrecordedError, error) {
	current, err := statedir.Current()
	if err != nil {
		return nil, err
	}
	records, damaged, err := readRecords(dir, current.Same)
	if err != nil {
		return nil, err
	}
	s, err := engine.ReadLinks()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{} // that pod interfaces may have had
	for _, l := range s.Links {
		names[l.Name] = true
		// A prefix comes before it, and one that is too long for that is shortened.
		prefix, name, ok := strings.Cut(l.Name, "-")
		isShort := func(of nl.Link) bool { return of.Name != name && engine.LinkName(prefix+"-", of.Name) == l.Name }
		if ok && !slices.ContainsFunc(s.Links, isShort) {
			names[name] = true
		}
	}
	why := map[string]error{}
	for _, d := range damaged {
		names[nameOf(d.path)], why[nameOf(d.path)] = true, d
	}
	for _, r := range records {
		delete(names, r.name())
	}
	var out []*UnrecordedError
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := unrecorded(s, dir, name, why[name]); err != nil {
			out = append(out, err)
		}
	}
	return out, nil
}

// unrecorded returns an error if the interface, whose record is damaged or missing
// (nil), is prepared.
func unrecorded(s *engine.State, dir, name string, damaged error) *UnrecordedError {
	all := traces(s, name)
	links := slices.DeleteFunc(slices.Clone(all), func(link string) bool { return link == name })
	switch {
	case damaged != nil && (len(all) > 1 || len(all) > 0 && !asByCNI(s, name)):
		remedy := "without the record the CNI's settings can't be restored: recreate the pod"
		if _, isNewer := errors.AsType[*newerError](damaged); isNewer {
			remedy = "restore the pod with that version, or one that is newer still"
		}
		return &UnrecordedError{name, links, fmt.Sprintf("its %v", damaged), remedy}
	case damaged == nil && len(all) > 1: // one alone may be somebody else's
		return &UnrecordedError{name, links, dir + " has no record of it", "name the state directory in which it was prepared " +
			"(that of a container is below /proc/PID/root; one below " + DefaultStateDir + " if none was named, but a network namespace was; on the node if its CNI plugin prepared it); " +
			"if that is lost, the CNI's settings can't be restored: recreate the pod"}
	}
	return nil
}

// checkUnrecorded says which of the named interfaces, or of all, are not prepared. It
// is an error if they are, without a record.
func (s *Store) checkUnrecorded(log *slog.Logger, names []string, records []record) error {
	all := len(names) == 0
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return indexOf(records, name) >= 0 })
	if len(names) == 0 && len(records) > 0 {
		return nil
	}
	found, err := ReadUnrecorded(s.Dir())
	if err != nil {
		return err
	}
	var errs []error
	for _, u := range found {
		if all || slices.Contains(names, u.Interface) {
			errs = append(errs, fmt.Errorf("restore: %w", u))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, name := range names {
		log.Info("nothing to restore: the interface is not prepared", "interface", name)
	}
	if all {
		log.Info("nothing to restore: no interface is recorded as prepared", "stateDir", s.Dir())
	}
	return nil
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
