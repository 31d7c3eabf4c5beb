package cniplugin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// The pod's annotations.
const (
	annotationVM     = "virt-launcher-net/vm"     // "true": a VM is in it
	annotationConfig = "virt-launcher-net/config" // options as JSON
)

// annotations are the pod's; passed is whether the runtime passes any pod's.
func (r runtimeConfig) annotations() (all map[string]string, passed bool, err error) {
	if r.Annotations == nil {
		return nil, false, nil
	}
	if err := json.Unmarshal(r.Annotations, &all); err != nil {
		return nil, true, fail(types.ErrDecodingFailure, "read the pod's annotations in runtimeConfig", err)
	}
	return all, true, nil
}

// selected tells whether the pod is a VM's, and what it asks for.
func (c config) selected() (selected bool, asked string, err error) {
	all, passed, err := c.runtime.annotations()
	if err != nil || c.all {
		return c.all, all[annotationConfig], err
	}
	if !passed {
		return false, "", types.NewError(codeNoAnnotations, "the plugin does not get the pods' annotations, and so can't know which pods are of VMs",
			`give the plugin "capabilities": {"io.kubernetes.cri.pod-annotations": true, "dns": true} in the network configuration; `+
				`it takes containerd 1.5 or CRI-O 1.29, and no other plugin between the runtime and this one; or set "select": "all" where every pod is of a VM`)
	}
	switch vm := all[annotationVM]; vm {
	case "true":
		return true, all[annotationConfig], nil
	case "", "false":
		return false, "", nil
	default:
		return false, "", types.NewError(codePod, "the pod's annotation "+annotationVM+" has a wrong value", fmt.Sprintf("%q: want true or false", vm))
	}
}

// optionsFor are those of the NIC of a pod that asks for some: those of the
// configuration, in their place those that the pod sets, and what it is called and whom
// it asks for names. The earlier attachments are of the same container.
func (c call) optionsFor(pod attachment.Pod, asked string, earlier []attachment.Attachment) (map[string]json.RawMessage, error) {
	if err := c.conf.checkOptions(); err != nil {
		return nil, err
	}
	all := maps.Clone(c.conf.options)
	if asked != "" {
		set, err := c.conf.asked(asked)
		if err != nil {
			return nil, fail(codePod, "the pod's annotation "+annotationConfig+" is wrong", err)
		}
		for _, name := range c.conf.inTheWay(set) {
			delete(all, name)
		}
		maps.Copy(all, set)
	}
	known := config{options: map[string]json.RawMessage{}}
	if err := known.setDNS(c.dns(earlier)); err != nil {
		return nil, err
	}
	if name := hostname(pod.Name); name != "" {
		known.options["hostname"] = json.RawMessage(`"` + name + `"`)
	}
	maps.Copy(known.options, all)
	return known.options, nil
}

// asked are the options that a pod sets.
func (c config) asked(text string) (set map[string]json.RawMessage, err error) {
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		return nil, fmt.Errorf("%s: want a JSON object: %w", brief([]byte(text)), err)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		_, node := keys[name]
		isOption := slices.Contains(settings.Keys(), name)
		if (node || isOption) && !slices.Contains(c.allowed, name) {
			return nil, fmt.Errorf("a pod may not set %s: the node's network configuration does, or lists it in allowedOptions", name)
		}
	}
	return set, checkOptions(set)
}

// inTheWay are options of the configuration that do not go with what a pod sets: nothing
// that it could set would take them away. What is the node's alone stays.
func (c config) inTheWay(set map[string]json.RawMessage) (names []string) {
	if set["vmPorts"] != nil {
		names = append(names, "podPorts")
	}
	if set["podPorts"] != nil {
		names = append(names, "vmPorts")
	}
	datapath := cmp.Or(string(c.options["datapath"]), strconv.Quote(prepare.DefaultDatapath))
	if other := set["datapath"]; other != nil && string(other) != datapath {
		names = append(names, "podPorts", "vmPorts", "vmAlias", "bridgeName", "uplinkName")
	}
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(c.allowed, name) })
}

// dns are the name servers and search domains of the pod, as far as they are known, and
// never the node's: what the runtime passes, or has written to the pod's resolv.conf;
// what an earlier NIC was told; or what the plugin before said.
func (c call) dns(earlier []attachment.Attachment) (servers, search []string) {
	if d := c.conf.runtime.DNS; d != nil && len(d.Servers) > 0 {
		return c.usable(d.Servers), d.Searches
	}
	// CRI-O passes nothing, and writes the file before it calls plugins.
	path := filepath.Join("/run/containers/storage/overlay-containers", c.ContainerID, "userdata/resolv.conf")
	if r, err := discover.ReadResolvConf(path); err == nil && len(r.Servers) > 0 {
		for _, a := range r.Servers {
			servers = append(servers, a.String())
		}
		return servers, r.Search
	}
	for _, a := range earlier {
		o, err := a.Settings()
		if err != nil || len(o.Lease.DNS) == 0 {
			continue
		}
		for _, a := range o.Lease.DNS {
			servers = append(servers, a.String())
		}
		return servers, o.Lease.Search
	}
	if c.conf.prev != nil {
		return c.usable(c.conf.prev.DNS.Nameservers), c.conf.prev.DNS.Search
	}
	return nil, nil
}

// usable are the name servers that a VM can ask.
func (c call) usable(servers []string) (out []string) {
	for _, s := range servers {
		a, err := netip.ParseAddr(s)
		if err == nil && (a.IsLoopback() || a.IsUnspecified()) {
			err = errors.New("it means the host itself")
		}
		if err != nil {
			c.log.Warn("left out a name server of the pod", "server", s, "why", err)
			continue
		}
		out = append(out, s)
	}
	return out
}

// podOf is the pod as the runtime calls it in CNI_ARGS (K8S_POD_NAME=vm;…).
func podOf(args string) (p attachment.Pod) {
	for pair := range strings.SplitSeq(args, ";") {
		switch key, value, _ := strings.Cut(pair, "="); key {
		case "K8S_POD_NAMESPACE":
			p.Namespace = value
		case "K8S_POD_NAME":
			p.Name = value
		case "K8S_POD_UID":
			p.UID = value
		}
	}
	return p
}

// hostname is what kubelet calls the host of a pod of that name: 63 characters of it at
// most, and no dash or dot at its end. Empty: it is no name.
func hostname(pod string) string {
	name := strings.ToLower(pod)
	name = strings.TrimRight(name[:min(len(name), 63)], "-.")
	if guest.CheckHostname(name) != nil {
		return ""
	}
	return name
}
