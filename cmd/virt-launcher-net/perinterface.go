package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

const perInterfaceHelp = `

A flag with [interface=] applies to all interfaces of the VM; with NAME= before its
value, to that interface only, where it replaces what the flag says for all.`

// perInterface has the flags that define defines take what is for one interface too,
// as in --mac net1=52:54:00:00:00:01.
func (p *program) perInterface(cmd *cobra.Command, define func(*pflag.FlagSet)) {
	cmd.Long = strings.TrimSuffix(cmd.Long, perInterfaceHelp) + perInterfaceHelp
	var flags pflag.FlagSet
	define(&flags)
	flags.VisitAll(func(f *pflag.Flag) {
		kind, usage := pflag.UnquoteUsage(f)
		f.Usage = usage
		f.Value = &perInterfaceValue{Value: f.Value, p: p, flag: f.Name, kind: "[interface=]" + kind}
		f.DefValue = f.Value.String()
		cmd.Flags().AddFlag(f)
	})
}

// perInterfaceValue is such a flag. What has a = waits until all flags are known.
type perInterfaceValue struct {
	pflag.Value
	p    *program
	flag string
	kind string
	last string
}

func (v *perInterfaceValue) Type() string { return v.kind }

func (v *perInterfaceValue) String() string {
	if text := cmp.Or(v.last, v.Value.String()); text != "[]" { // of no words
		return text
	}
	return ""
}

// Set implements [pflag.Value].
func (v *perInterfaceValue) Set(s string) error {
	v.last = s
	if !strings.Contains(s, "=") {
		return v.Value.Set(s)
	}
	v.p.waiting = append(v.p.waiting, waitingFlag{v.flag, s, v.Value})
	return nil
}

// waitingFlag is a flag that may be for one interface, with its value for all.
type waitingFlag struct {
	flag, text string
	all        pflag.Value
}

func (w waitingFlag) fail(err error) error {
	return fmt.Errorf("invalid argument %q for \"--%s\" flag: %w", w.text, w.flag, err)
}

// hasSign tells which flags have a = in their values, so that what is before it
// is an interface only if --interface names it.
var hasSign = []string{"boot-file", "dhcp-option"}

// setPerInterface gives each interface that a flag names what all have, and then
// its own.
func (p *program) setPerInterface() error {
	var single []waitingFlag
	for _, w := range p.waiting {
		name, _, _ := strings.Cut(w.text, "=")
		if !slices.Contains(hasSign, w.flag) || slices.Contains(p.hook.Interfaces, name) {
			single = append(single, w)
		} else if err := w.all.Set(w.text); err != nil {
			return w.fail(err)
		}
	}
	own := map[string]*pflag.FlagSet{}
	p.hook.PerInterface = map[string]prestart.InterfaceOptions{}
	for _, w := range single {
		name, text, _ := strings.Cut(w.text, "=")
		if own[name] == nil {
			own[name] = p.optionsOf(name)
		}
		if name == "" || text == "" {
			return w.fail(errors.New("want an interface before the =, and a value after it"))
		}
		if err := own[name].Set(w.flag, text); err != nil {
			return err
		}
	}
	for name, flags := range own {
		o := p.hook.PerInterface[name]
		settings.LeaveInherited(o.Network, p.hook.Network, flags.Changed)
		o.Model = flags.Lookup("model").Value.String()
		p.hook.PerInterface[name] = o
	}
	return nil
}

// optionsOf makes the options of an interface, as all have them, and returns the
// flags that change them.
func (p *program) optionsOf(name string) *pflag.FlagSet {
	network, lease, model := p.hook.Network, p.hook.Lease, p.hook.Model
	lease.DefaultRoute = ""
	p.hook.PerInterface[name] = prestart.InterfaceOptions{Network: &network, Lease: &lease}
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	settings.Network(flags, &network)
	settings.Lease(flags, &lease)
	settings.Model(flags, &model)
	return flags
}
