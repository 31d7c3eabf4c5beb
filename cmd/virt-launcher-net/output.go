package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// view is what a verb prints: a value as JSON, or text for people. The zero value
// is nothing.
type view struct {
	json any
	text func(io.Writer)
}

// list is the JSON of a list of that name; it is there though it may be empty.
func list[T any](name string, items []T) any { return map[string][]T{name: append([]T{}, items...)} }

// print prints one view in the form asked for, in one piece.
func (p *program) print(w io.Writer, v view) error {
	if v.text == nil {
		return nil
	}
	var out bytes.Buffer
	if p.output == "json" {
		b, err := json.MarshalIndent(v.json, "", "  ")
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		out.Write(append(b, '\n'))
	} else {
		table := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
		v.text(table)
		if err := table.Flush(); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
	if _, err := w.Write(printable(out.Bytes())); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// printable is text in which a terminal finds no commands: names of links, files and
// domains may have any character.
func printable(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// podView is a pod as programs read it: without the kernel's own messages.
type podView struct {
	Hostname   string            `json:"hostname"`
	DNS        discover.Resolver `json:"dns"`
	Interfaces []interfaceView   `json:"interfaces"`
}

type interfaceView struct {
	Name      string              `json:"name"`
	Index     int                 `json:"index"`
	Kind      string              `json:"kind"`
	MAC       mac.Addr            `json:"mac"`
	MTU       int                 `json:"mtu"`
	Addresses []netip.Prefix      `json:"addresses"`
	Routes    []routeView         `json:"routes"`
	Neighbors []guest.Neighbor    `json:"neighbors"`
	Omitted   []discover.Omission `json:"omitted,omitempty"`
}

type routeView struct {
	Destination netip.Prefix   `json:"destination"`
	Gateway     netip.Addr     `json:"gateway,omitzero"`
	Source      netip.Addr     `json:"source,omitzero"`
	Scope       discover.Scope `json:"scope"`
	OnLink      bool           `json:"onLink,omitempty"`
	Table       int            `json:"table"`
	Metric      int            `json:"metric,omitempty"`
	MTU         int            `json:"mtu,omitempty"`
}

func viewPod(pod discover.Pod) podView {
	v := podView{Hostname: pod.Hostname, DNS: pod.DNS, Interfaces: []interfaceView{}}
	v.DNS.Servers, v.DNS.Search = append([]netip.Addr{}, pod.DNS.Servers...), append([]string{}, pod.DNS.Search...)
	for _, in := range pod.Interfaces {
		i := interfaceView{
			Name: in.Name, Index: in.Index, Kind: in.Kind, MAC: in.MAC, MTU: in.MTU,
			Addresses: []netip.Prefix{}, Routes: []routeView{}, Neighbors: []guest.Neighbor{}, Omitted: in.Omitted,
		}
		for _, a := range in.Addresses {
			i.Addresses = append(i.Addresses, a.Prefix)
		}
		for _, r := range in.Routes {
			i.Routes = append(i.Routes, routeView{r.Destination, r.Gateway, r.Source, r.Scope, r.OnLink, r.Table, r.Metric, r.MTU})
		}
		for _, n := range in.Neighbors {
			i.Neighbors = append(i.Neighbors, guest.Neighbor{Address: n.Address, MAC: n.MAC})
		}
		v.Interfaces = append(v.Interfaces, i)
	}
	return v
}

func writePod(w io.Writer, pod discover.Pod) {
	fmt.Fprintf(w, "hostname\t%s\n", cmp.Or(pod.Hostname, "none"))
	fmt.Fprintf(w, "dns\t%s\n", cmp.Or(join(pod.DNS.Servers), "none"))
	fmt.Fprintf(w, "search\t%s\n", cmp.Or(strings.Join(pod.DNS.Search, " "), "none"))
	rows(w, "left out", "resolv.conf: %s", pod.DNS.LeftOut...)
	for _, i := range pod.Interfaces {
		fmt.Fprintf(w, "\ninterface\t%s\t(%s)\nmac\t%s\nmtu\t%d\n", i.Name, i.Kind, i.MAC, i.MTU)
		for _, a := range i.Addresses {
			fmt.Fprintf(w, "address\t%s\n", a.Prefix)
		}
		for _, r := range i.Routes {
			fmt.Fprintf(w, "route\t%s\n", r)
		}
		for _, n := range i.Neighbors {
			fmt.Fprintf(w, "neighbor\t%s\t%s\n", n.Address, n.MAC)
		}
		rows(w, "left out", "%s", i.Omitted...)
	}
}

// rows writes a line for each item that is not empty.
func rows[T comparable](w io.Writer, name, format string, items ...T) {
	for _, item := range items {
		if item != *new(T) {
			fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, item))
		}
	}
}

func join[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, " ")
}

// planView is what prepare would do to an interface.
type planView struct {
	prestart.Interface
	Warnings []string `json:"warnings,omitempty"` // with the way out
	Steps    []string `json:"steps"`
}

func viewPlans(plans []prepare.Plan) (out []planView) {
	for _, p := range plans {
		out = append(out, planView{prestart.NewInterface(p), p.Warnings(false), strings.Split(strings.TrimSpace(p.String()), "\n")})
	}
	return out
}

func writePlans(w io.Writer, plans []planView) {
	for _, p := range plans {
		for _, warning := range p.Warnings {
			fmt.Fprintln(w, "# warning:", warning)
		}
		fmt.Fprintln(w, strings.Join(p.Steps, "\n"))
	}
}

// viewPrepared is what prepare prints, and what serves once it is ready.
func viewPrepared(interfaces []prestart.Interface) view {
	return view{list("interfaces", interfaces), func(w io.Writer) {
		fmt.Fprintln(w, "INTERFACE\tTAP\tMAC\tMTU\tADDRESSES\tALIASES\tLINKS")
		for _, i := range interfaces {
			var links []string
			for _, l := range i.Links {
				links = append(links, l.Role+"="+l.Name)
			}
			var aliases []netip.Addr
			for _, a := range i.Aliases {
				aliases = append(aliases, a.VM)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", i.Interface, i.Tap, i.MAC, i.MTU,
				cmp.Or(join(i.Addresses), "none"), cmp.Or(join(aliases), "none"), cmp.Or(strings.Join(links, " "), "none"))
		}
	}}
}

// versionView says what was built, of what.
type versionView struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	Libvirt bool   `json:"libvirt"` // run --domain is in this build
}

func currentVersion() versionView {
	v := versionView{Version: version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		cgo, tags := false, ""
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "CGO_ENABLED":
				cgo = s.Value == "1"
			case "-tags":
				tags = s.Value
			}
		}
		v.Libvirt = cgo && strings.Contains(tags, "libvirt_dlopen")
	}
	return v
}

func writeVersion(w io.Writer, v versionView) {
	fmt.Fprintf(w, "virt-launcher-net %s (%s)\n", v.Version, v.Go)
	if !v.Libvirt {
		fmt.Fprintln(w, "without libvirt: run --domain is not in this build")
	}
}
