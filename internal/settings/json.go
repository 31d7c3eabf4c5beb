package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Options are those of one pod interface. The zero value is the default.
type Options struct {
	Network prepare.Options
	Lease   prestart.LeaseSettings
	Model   string // of the emulated NIC; empty: virtio
}

// flags are all of them. What is set is seen in o at once.
func (o *Options) flags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	Network(flags, &o.Network)
	Lease(flags, &o.Lease)
	Model(flags, &o.Model)
	return flags
}

// Given defines the flags of all of them, each for one interface, and returns what is
// given of them on the command line, as [Options.Set] takes it once it is JSON.
func Given(flags *pflag.FlagSet) map[string][]string {
	values := map[string][]string{}
	new(Options).flags().VisitAll(func(f *pflag.Flag) {
		f.Value = &given{f.Value, camelCase(f.Name), values}
		if f.DefValue == "[]" { // of no texts: not worth a word in the help
			f.DefValue = ""
		}
		flags.AddFlag(f)
	})
	return values
}

// given is a flag whose texts are kept as they are.
type given struct {
	pflag.Value // which checks them
	key         string
	values      map[string][]string
}

// Set implements [pflag.Value].
func (g *given) Set(text string) error {
	err := g.Value.Set(text)
	if err == nil {
		g.values[g.key] = append(g.values[g.key], text)
	}
	return err
}

// Keys are the names that the options have in JSON: those of the flags in camel case,
// podPorts for --pod-ports.
func Keys() []string {
	var keys []string
	new(Options).flags().VisitAll(func(f *pflag.Flag) { keys = append(keys, camelCase(f.Name)) })
	return keys
}

// Set sets options from JSON: a text as the flag takes it, a number, or a list of these
// for what is repeated. All that is wrong is in the error, by its key.
func (o *Options) Set(values map[string]json.RawMessage) error {
	inherited := o.Network
	names := map[string]string{} // of flags by key
	flags := o.flags()
	flags.VisitAll(func(f *pflag.Flag) { names[camelCase(f.Name)] = f.Name })
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name, ok := names[key]
		if !ok {
			errs = append(errs, fmt.Errorf("%s is not an option: want one of %s", key, strings.Join(slices.Sorted(maps.Keys(names)), ", ")))
			continue
		}
		texts, err := textsOf(values[key])
		for _, text := range texts {
			if err == nil {
				err = flags.Lookup(name).Value.Set(text)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", key, values[key], err))
		}
	}
	LeaveInherited(&o.Network, inherited, func(flag string) bool { return values[camelCase(flag)] != nil })
	return errors.Join(errs...)
}

// Validate tells what is wrong with the options whatever the pod is.
func (o Options) Validate() error {
	return errors.Join(o.Network.Validate(), o.Lease.Validate(), domain.CheckModel(o.Model))
}

// textsOf are the texts of a JSON value as a flag would be given them.
func textsOf(value json.RawMessage) ([]string, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	var texts []string
	for _, item := range list {
		switch item := item.(type) {
		case string:
			texts = append(texts, item)
		case json.Number:
			texts = append(texts, item.String())
		case bool: // guard, ipv6
			texts = append(texts, map[bool]string{true: "on", false: "off"}[item])
		default:
			return nil, errors.New("want a text, a number, true or false, or a list of these")
		}
	}
	return texts, nil
}

// camelCase is a flag's name as a key of JSON: pod-ports is podPorts.
func camelCase(flag string) string {
	words := strings.Split(flag, "-")
	for i := range words[1:] {
		words[i+1] = strings.ToUpper(words[i+1][:1]) + words[i+1][1:]
	}
	return strings.Join(words, "")
}
