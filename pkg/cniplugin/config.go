package cniplugin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// config is the network configuration of a call: what the node's owner has set.
type config struct {
	version      string // of the specification
	network      string
	all          bool // every pod is a VM's; else those whose annotation says so
	stateDir     string
	podInterface string // the pod's; empty: which it is depends on the pod
	timeout      time.Duration
	logLevel     slog.Level
	allowed      []string                   // options that a pod may set
	options      map[string]json.RawMessage // as [settings.Options.Set] takes them
	prev         *types100.Result           // nil: no plugin came before
	runtime      runtimeConfig
	valid        []types.GCAttachment // that GC must leave
	wrong        error                // of a key whose value is no matter of pods without a VM
}

// runtimeConfig is what the runtime passes for the capabilities of the configuration.
type runtimeConfig struct {
	// Annotations are the pod's; nil: the runtime passes none. A pod that has none is an
	// empty or a null value.
	Annotations json.RawMessage `json:"io.kubernetes.cri.pod-annotations"`
	// DNS is as CNI's conventions have it. containerd writes the names in upper case.
	DNS *struct {
		Servers  []string `json:"servers"`
		Searches []string `json:"searches"`
	} `json:"dns"`
}

// defaultTimeout is how long a call may wait, for an address or for another call.
const defaultTimeout = 30 * time.Second

// guarded are the options that a pod may not set unless the configuration allows it: by
// them it could take another's place in the network, or have another's label.
var guarded = []string{"guard", "mac", "selinuxContext"}

// key is a key of the configuration that is no option of the interface.
type key struct {
	set func(*config, json.RawMessage) error // nil: it is not the plugin's to look at
	// base is whether it says where the state is, and of what network.
	base bool
	// late is whether a value that is wrong is told when a VM's pod is made: pods without a
	// VM are, and all are ended, as if it were not there.
	late bool
}

// keys are those that the plugin has, and those that the specification, libcni and
// Multus put beside them.
var keys = map[string]key{
	"select": {set: func(c *config, v json.RawMessage) error {
		var s string
		err := json.Unmarshal(v, &s)
		if c.all = s == "all"; err != nil || !c.all && s != "annotation" {
			return errors.New("want annotation or all")
		}
		return nil
	}},
	"stateDir": {base: true, set: func(c *config, v json.RawMessage) error {
		if err := json.Unmarshal(v, &c.stateDir); err != nil || !filepath.IsAbs(c.stateDir) {
			return errors.New("want an absolute path")
		}
		return nil
	}},
	"interface": {late: true, set: func(c *config, v json.RawMessage) error {
		if err := text(v, &c.podInterface); err != nil {
			return err
		}
		return guest.CheckName(c.podInterface)
	}},
	"timeout": {base: true, late: true, set: func(c *config, v json.RawMessage) error {
		var s string
		err := json.Unmarshal(v, &s)
		d, parseErr := time.ParseDuration(s)
		if err != nil || parseErr != nil || d <= 0 {
			return errors.New("want a duration of more than 0, such as 30s")
		}
		c.timeout = d
		return nil
	}},
	"logLevel": {base: true, late: true, set: func(c *config, v json.RawMessage) error {
		var s string
		if err := json.Unmarshal(v, &s); err != nil || !slices.Contains([]string{"debug", "info", "warn", "error"}, s) {
			return errors.New("want debug, info, warn or error")
		}
		return c.logLevel.UnmarshalText([]byte(s))
	}},
	"allowedOptions": {late: true, set: func(c *config, v json.RawMessage) error {
		c.allowed = nil
		if err := json.Unmarshal(v, &c.allowed); err != nil {
			return errors.New("want a list of options")
		}
		for _, option := range c.allowed {
			if !slices.Contains(settings.Keys(), option) {
				return fmt.Errorf("%s is not an option: want some of %s", option, strings.Join(settings.Keys(), ", "))
			}
		}
		return nil
	}},
	// The specification has an object here, and libcni takes nothing else.
	"dns": {late: true, set: func(c *config, v json.RawMessage) error {
		var d types.DNS
		if err := json.Unmarshal(v, &d); err != nil {
			return errors.New(`want {"nameservers": […], "search": […]}`)
		}
		return c.setDNS(d.Nameservers, d.Search)
	}},
	"cniVersion":    {base: true, set: func(c *config, v json.RawMessage) error { return text(v, &c.version) }},
	"name":          {base: true, set: func(c *config, v json.RawMessage) error { return text(v, &c.network) }},
	"runtimeConfig": {set: func(c *config, v json.RawMessage) error { return json.Unmarshal(v, &c.runtime) }},
	"ipam": {late: true, set: func(_ *config, v json.RawMessage) error {
		var ipam types.IPAM
		if err := json.Unmarshal(v, &ipam); err != nil || ipam.Type != "" {
			return errors.New("the plugin assigns no addresses: the plugin that makes the interface does")
		}
		return nil
	}},
	"cni.dev/valid-attachments": {base: true, set: setValid},
	"cni.dev/attachments":       {base: true, set: setValid}, // the specification's first text called it so; libcni gives both
	"prevResult":                {},                          // read when the version is known
	"type":                      {},
	"capabilities":              {},
	"args":                      {},
	"disableCheck":              {},
	"disableGC":                 {},
	"deviceID":                  {},
	"pciBusID":                  {},
}

func setValid(c *config, v json.RawMessage) error { return json.Unmarshal(v, &c.valid) }

// readConfig reads a configuration. An option that is wrong is found where it is used:
// it is no matter of pods without a VM.
func readConfig(stdin []byte) (config, error) {
	c, values, err := parse(stdin, func(key) bool { return true })
	if err != nil {
		return c, err
	}
	for name, value := range values {
		if _, known := keys[name]; !known && !strings.HasPrefix(name, "cni.dev/") {
			c.options[name] = value
		}
	}
	if prev, ok := values["prevResult"]; ok {
		if c.prev, err = readResult(c.version, prev); err != nil {
			return c, fail(types.ErrDecodingFailure, "read prevResult", err)
		}
	}
	return c, nil
}

// CheckConfig tells what is wrong with a network configuration: what the runtime would be
// told when it makes a pod.
func CheckConfig(conf []byte) error {
	c, err := readConfig(conf)
	if err != nil {
		return err
	}
	return c.checkOptions()
}

// readBase reads of a configuration where the state is, and nothing else.
func readBase(stdin []byte) (config, error) {
	c, _, err := parse(stdin, func(k key) bool { return k.base })
	return c, err
}

// parse takes the keys that are wanted.
func parse(stdin []byte, wanted func(key) bool) (config, map[string]json.RawMessage, error) {
	c := config{
		stateDir: prepare.DefaultStateDir, timeout: defaultTimeout, logLevel: slog.LevelWarn, options: map[string]json.RawMessage{},
		allowed: slices.DeleteFunc(settings.Keys(), func(option string) bool { return slices.Contains(guarded, option) }),
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &values); err != nil {
		return c, nil, fail(types.ErrDecodingFailure, "read network configuration", err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		k := keys[name]
		if k.set == nil || !wanted(k) {
			continue
		}
		err := k.set(&c, values[name])
		if err == nil {
			continue
		}
		err = fail(types.ErrInvalidNetworkConfig, "the network configuration has a wrong value", fmt.Errorf("%s: %s: %w", name, brief(values[name]), err))
		if !k.late {
			return c, nil, err
		}
		c.wrong = cmp.Or(c.wrong, err)
	}
	return c, values, nil
}

// setDNS sets the options dns and search.
func (c *config) setDNS(servers, search []string) (err error) {
	for option, list := range map[string][]string{"dns": servers, "search": search} {
		if len(list) > 0 && err == nil {
			c.options[option], err = json.Marshal(list)
		}
	}
	return err
}

// checkOptions tells what is wrong with the options of the configuration, and with those of
// its keys that only pods of VMs need.
func (c config) checkOptions() error {
	if c.wrong != nil {
		return c.wrong
	}
	for _, name := range slices.Sorted(maps.Keys(c.options)) {
		if !slices.Contains(settings.Keys(), name) {
			all := slices.Concat(settings.Keys(), []string{"select", "stateDir", "interface", "timeout", "logLevel", "allowedOptions"})
			slices.Sort(all)
			return types.NewError(types.ErrUnsupportedField, "the network configuration has a key that the plugin does not have",
				fmt.Sprintf("%s: %s: want some of %s", name, brief(c.options[name]), strings.Join(all, ", ")))
		}
	}
	if err := checkOptions(c.options); err != nil {
		return fail(types.ErrInvalidNetworkConfig, "the network configuration has a wrong value", err)
	}
	return nil
}

// checkOptions tells what is wrong with options whatever the pod is.
func checkOptions(options map[string]json.RawMessage) error {
	var o settings.Options
	if err := o.Set(options); err != nil {
		return err
	}
	return o.Validate()
}

// readResult reads the result of the plugin before.
func readResult(v string, text json.RawMessage) (*types100.Result, error) {
	conf := types.PluginConf{CNIVersion: v}
	err := json.Unmarshal(text, &conf.RawPrevResult)
	if err == nil {
		err = checkNoNull(text)
	}
	if err == nil {
		err = version.ParsePrevResult(&conf)
	}
	if err != nil || conf.PrevResult == nil {
		return nil, err
	}
	return types100.NewResultFromResult(conf.PrevResult)
}

// checkNoNull refuses what package types100 does not expect in a result.
func checkNoNull(result json.RawMessage) error {
	var lists struct{ Interfaces, IPs, Routes []*struct{} }
	err := json.Unmarshal(result, &lists)
	if slices.Contains(slices.Concat(lists.Interfaces, lists.IPs, lists.Routes), nil) {
		err = errors.New("an interface, address or route of it is null")
	}
	return err
}

// text reads what is not empty.
func text(v json.RawMessage, to *string) error {
	if err := json.Unmarshal(v, to); err != nil || *to == "" {
		return errors.New("want a text")
	}
	return nil
}

// brief is a value in an error.
func brief(v json.RawMessage) string {
	const most = 200
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil || b.Len() > most {
		return string(v[:min(len(v), most)]) + "…"
	}
	return b.String()
}
