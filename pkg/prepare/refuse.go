package prepare

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/podside"
)

// CheckApply finds out whether [Apply] would refuse the plans for what is there: a
// name that is taken, or an interface that dir, as [Store.Dir] tells it, has
// recorded as prepared with other options. It changes nothing and needs no
// privileges.
func CheckApply(dir string, plans ...Plan) error {
	if err := compatible(plans); err != nil {
		return err
	}
	recorded, err := ReadPlans(nil, dir)
	if err != nil {
		return err
	}
	s, err := engine.ReadLinks()
	if err != nil {
		return err
	}
	for _, p := range plans {
		name := p.Interface.Name
		n := slices.IndexFunc(recorded, func(r Plan) bool { return r.Interface.Name == name })
		if n < 0 {
			if err := p.unprepared(s, dir); err != nil {
				return fmt.Errorf("prepare %s: %w", name, err)
			}
		} else if recorded[n].hasLinks(s) {
			if err := p.sameOptions(recorded[n]); err != nil {
				return err
			}
		}
	}
	return nil
}

// CheckSupport finds out whether the kernel and the container have what the
// plans need, and changes nothing. What the kernel tells only those who have
// NET_ADMIN is left out without it. It takes some milliseconds where a plan has
// tables.
func CheckSupport(plans ...Plan) error {
	if err := checkZero(plans...); err != nil {
		return err
	}
	k, err := engine.Open(silent)
	if err != nil {
		return err
	}
	defer k.Close()
	var ops []engine.Op
	for _, p := range plans {
		ops = append(ops, p.ops()...)
	}
	return k.Supported(ops, true)
}

// CheckPrivileges finds out whether the calling thread may change its network namespace, as
// Apply and Restore do. Without NET_ADMIN the error wraps [unix.EPERM].
func CheckPrivileges() error {
	_, err := nft.Read()
	return engine.Explain(err)
}

// compatible refuses plans that can't be applied together.
func compatible(plans []Plan) error {
	if err := checkZero(plans...); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	interfaces, aliases := map[string]bool{}, map[netip.Addr]string{}
	for _, p := range plans {
		name := p.Interface.Name
		if interfaces[name] {
			return fmt.Errorf("prepare %s: there are two plans for it: give one", name)
		}
		interfaces[name] = true
		for _, a := range p.NIC().Aliases {
			if other, ok := aliases[a.VM]; ok {
				return fmt.Errorf("prepare %s: the VM's alias %s is that by %s, too: choose another alias for one of both", name, a.VM, other)
			}
			aliases[a.VM] = name
		}
	}
	return nil
}

// unprepared refuses to take over links, or an interface that is prepared, of which dir has
// no record.
func (p Plan) unprepared(s *engine.State, dir string) error {
	for _, made := range p.madeLinks() {
		l := s.Named(made.Name)
		switch {
		case l == nil:
		case l.Name != made.Name:
			return &NameTakenError{
				Name: made.Name, For: made.Role, Why: "as an alternative name of " + l.Name,
				Free: fmt.Sprintf("remove that (ip link property del dev %s altname %s)", l.Name, made.Name),
			}
		default:
			e := &NameTakenError{Name: made.Name, For: made.Role, Why: "by " + engine.Kind(*l) + " that is not recorded in the state directory"}
			if slices.Contains(traces(s, p.Interface.Name), l.Name) {
				e.Free = "name the state directory that was used before"
				if !made.Renamed {
					e.Free += fmt.Sprintf(", or delete it if nobody else needs it (ip link delete %s)", l.Name)
				}
			}
			return e
		}
	}
	if u := unrecorded(s, dir, p.Interface.Name, nil); u != nil { // by another tap name
		return u
	}
	return nil
}

// upToDate refuses a plan that was made before the interface got all that it has now:
// restore puts back what the plan says, and nothing else. A datapath that leaves the pod
// the interface takes nothing away.
func (p Plan) upToDate(s *engine.State) error {
	more := podside.Unplanned(p.Interface, s.Interfaces[p.Interface.Index])
	if p.Shared() || more == "" {
		return nil
	}
	return fmt.Errorf("it has got the %s since it was read, which restore could not put back: read it again, and plan anew", more)
}

// sameOptions refuses what makes the plan differ from that by which the interface is
// prepared.
func (p Plan) sameOptions(was Plan) error {
	a, b := optionsOf(was), optionsOf(p)
	all := maps.Clone(a)
	maps.Copy(all, b)
	if p.Datapath != was.Datapath { // others follow from it
		all = map[string]string{"datapath": ""}
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if a[key] != b[key] {
			out = append(out, fmt.Sprintf("%s was %s, is now %s", key, cmp.Or(a[key], "none"), cmp.Or(b[key], "none")))
		}
	}
	if len(out) == 0 {
		return nil
	}
	return &OptionsError{Interface: p.Interface.Name, Differences: out}
}

// optionsOf are the options of which a plan was made, by their names, but for ports,
// which can be changed.
func optionsOf(p Plan) map[string]string {
	o := p.wired().Options()
	all := map[string]string{
		"datapath": p.Datapath, "mac": o.MAC.String(), "mtu": fmt.Sprint(o.MTU), "queues": fmt.Sprint(o.Queues),
		"guard": fmt.Sprint(!o.NoGuard), "ipv6": fmt.Sprint(!o.NoIPv6),
	}
	for key, alias := range map[string]netip.Addr{"vm alias": o.VMAlias, "vm IPv6 alias": o.VMAlias6} {
		if alias.IsValid() {
			all[key] = alias.String()
		}
	}
	if o.TapOwner != nil {
		all["tap owner"] = o.TapOwner.String()
	}
	if o.SELinuxContext != "" {
		all["SELinux context"] = o.SELinuxContext
	}
	for role, name := range o.Names {
		all[role+" name"] = name
	}
	return all
}
