// Package prepare rewires a pod's network namespace for a VM: it plans what to
// change (pure), makes it so, all or nothing, and can put everything back as
// the CNI left it.
//
// Like pkg/discover it acts on the network namespace of the calling thread.
package prepare

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/bridge"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/redirect"
)

// datapaths are all there are, by their names.
var datapaths = map[string]engine.Datapath{
	DefaultDatapath: bridge.Datapath{},
	"redirect":      redirect.Datapath{},
}

// DefaultDatapath is the one of whoever names none.
const DefaultDatapath = "bridge"

// Datapaths are the names of all that there are, for [Options].
func Datapaths() []string { return slices.Sorted(maps.Keys(datapaths)) }

// CheckDatapath refuses a name that is none of those, nor empty.
func CheckDatapath(name string) error {
	if _, ok := datapaths[cmp.Or(name, DefaultDatapath)]; !ok {
		return fmt.Errorf("there is no datapath %q: choose %s", name, strings.Join(Datapaths(), " or "))
	}
	return nil
}

// Plan says how one pod interface is wired for its VM, and what it was before. It is
// final, and the same for the same interface and options. NewPlan makes one, or it is read
// from a record. The zero value is of no interface: it has no links, and what would change
// a network namespace by it, or look at one, refuses it.
type Plan struct {
	Datapath  string             // how the tap is connected to the network
	Interface discover.Interface // as the CNI left it; for putting it back alone
	wiring    engine.Wiring
}

// Link is a link that is there while a pod interface is prepared. Its fields:
//
//	Role    string // [TapRole], or what another is for
//	Name    string
//	Renamed bool   // it is the pod's interface; others are made
type Link = engine.Link

// NewPlan plans how in is handed to a VM. It refuses an interface of which no VM can
// have the network, before anything is touched, and says what can be done about it: an
// [UnusableError].
func NewPlan(in discover.Interface, o Options) (Plan, error) {
	if err := CheckDatapath(o.Datapath); err != nil {
		return Plan{}, fmt.Errorf("plan %s: %w", in.Name, err)
	}
	o.PodPorts, o.VMPorts = o.PodPorts.Clone(), o.VMPorts.Clone() // the caller may change what is his
	if o.TapOwner != nil {
		o.TapOwner = new(*o.TapOwner)
	}
	name := cmp.Or(o.Datapath, DefaultDatapath)
	path := datapaths[name]
	_, err := path.Wire(in, Options{NoGuard: true}) // a datapath without a guard is not the interface's fault
	if err != nil {
		err = &UnusableError{in.Name, err}
	}
	var w engine.Wiring
	if err = errors.Join(err, o.Validate()); err == nil {
		w, err = path.Wire(in, o)
	}
	if err == nil {
		err = errors.Join(unused(name, o, w.Options()), w.Guest().Validate())
	}
	if err != nil {
		return Plan{}, fmt.Errorf("plan %s: %w", in.Name, err)
	}
	return Plan{name, in, w}, nil
}

// unused refuses options that the datapath has no use for.
func unused(datapath string, given, used Options) error {
	for _, role := range slices.Sorted(maps.Keys(given.Names)) {
		if name := given.Names[role]; name != "" && used.Names[role] == "" {
			return fmt.Errorf("the datapath %s has no link %s that could be named %s: leave that name out", datapath, role, name)
		}
	}
	if given.SELinuxContext != used.SELinuxContext || given.TapOwner != nil && (used.TapOwner == nil || *given.TapOwner != *used.TapOwner) {
		return fmt.Errorf("the datapath %s can't give the tap an owner or a label: leave them out", datapath)
	}
	if !samePorts(given, used) {
		return fmt.Errorf("the datapath %s gives the VM all ports, and the pod none: leave the ports out, or use the datapath redirect", datapath)
	}
	for _, a := range []struct{ given, used netip.Addr }{{given.VMAlias, used.VMAlias}, {given.VMAlias6, used.VMAlias6}} {
		if a.given.IsValid() && a.given != a.used {
			return fmt.Errorf("the VM can't have the alias %s: it is for the datapath redirect, and for a family of which the VM has an address: leave it out", a.given)
		}
	}
	return nil
}

// NIC is what the VM gets of the pod interface.
func (p Plan) NIC() guest.NIC { return p.wired().Guest().Clone() }

// Links are those that are there while the interface is prepared, the tap among them.
func (p Plan) Links() []Link { return p.wired().Links() }

// ops are what is to do in a pod that is as the CNI left it.
func (p Plan) ops() []engine.Op {
	st, err := p.wired().Apply(engine.Original(p.Interface))
	if err != nil { // the original state never conflicts with its own plan
		return nil
	}
	return st.Ops()
}

// String returns the plan as lines for a shell, in the words of ip(8), nft(8),
// sysctl(8) and their like, for a pod that is as the CNI left it.
func (p Plan) String() string {
	var b strings.Builder
	for _, name := range p.sysctls() { // a node without br_netfilter has none
		fmt.Fprintf(&b, "sysctl -e -w %s=0\n", name)
	}
	for _, o := range p.ops() {
		b.WriteString(o.String())
		b.WriteByte('\n')
	}
	names := []string{p.Interface.Name}
	for _, l := range p.Links() {
		names = append(names, l.Name)
	}
	if i := slices.IndexFunc(names, func(name string) bool { return !isPlain(name) }); i >= 0 {
		name := names[i]
		return fmt.Sprintf("# not for a shell: the name %q means something else there, or to nft(8)\n# %s\n",
			name, strings.ReplaceAll(strings.TrimSpace(b.String()), "\n", "\n# "))
	}
	return b.String()
}

// isPlain reports whether neither a shell nor nft(8) takes a name for anything else.
// Whoever makes a pod may choose its interfaces' names, and a configuration the tap's.
func isPlain(name string) bool {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
	return name != "" && strings.Trim(name, plain) == ""
}

// planJSON is a plan in a record.
type planJSON[W any] struct {
	Datapath  string             `json:"datapath"`
	Interface discover.Interface `json:"interface"`
	Wiring    W                  `json:"wiring"`
}

// MarshalJSON implements [json.Marshaler].
func (p Plan) MarshalJSON() ([]byte, error) {
	return json.Marshal(planJSON[engine.Wiring]{p.Datapath, p.Interface, p.wiring})
}

// decodePlan reads the plan for the interface of that name from a record of a
// version.
func decodePlan(name string, version int, text json.RawMessage) (p Plan, err error) {
	var r planJSON[json.RawMessage]
	if err := json.Unmarshal(text, &r); err != nil {
		return Plan{}, err
	}
	path, ok := datapaths[r.Datapath]
	if name != r.Interface.Name || !ok {
		return Plan{}, errors.New("it holds no plan for " + name)
	}
	if version == 1 { // all of it was one
		r.Wiring = text
	}
	if err := checkInterface(r.Interface); err != nil {
		return Plan{}, err
	}
	w, err := path.Decode(r.Interface, version, r.Wiring)
	return Plan{r.Datapath, r.Interface, w}, err
}

// sysctls have to be 0 while p is applied.
func (p Plan) sysctls() []string {
	if path, ok := datapaths[p.Datapath]; ok {
		return path.Sysctls()
	}
	return nil
}

// sysctlsOf are those of all plans.
func sysctlsOf(plans []Plan) (names []string) {
	for _, p := range plans {
		names = append(names, p.sysctls()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
