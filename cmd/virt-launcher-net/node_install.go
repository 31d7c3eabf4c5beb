package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/virt-launcher-net/virt-launcher-net/internal/cniconf"
	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/cniplugin"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// install is what the flags of node install and uninstall say.
type install struct {
	node         cniconf.Node
	options      string
	watch, check bool
}

func (p *program) nodeInstall() verb {
	var i install
	return verb{
		use:   "install",
		short: "Install the CNI plugin on the node",
		long: `Copy this program to where the container runtime has its CNI plugins, and put it
behind the plugins of the network configuration that the runtime takes, the first one
by name. Other keys and plugins stay as they are. A configuration of one plugin alone
(.conf) stays, too: a list (.conflist) with this plugin and ours goes before it. What is
in place already is not touched.

With --watch it stays, waits for a network that is yet to be installed, and installs
again what somebody changes. With --check it changes nothing, and fails if something is
not in place. Needs root and both directories, and no capability.`,
		examples: []string{
			"node install",
			"node install --watch --cni-bin-dir /host/bin --cni-conf-dir /host/net.d",
			`node install --cni-options '{"datapath": "redirect", "podPorts": "8080,9100/tcp"}'`,
		},
		flags: []func(*cobra.Command){i.flags, func(cmd *cobra.Command) {
			cmd.Flags().Var(settings.Choice("on", func(s string) { i.node.Chain = s == "on" }, "on", "off"), "chain", "off: install the program alone, for networks that name it themselves, such as Multus'")
			cmd.Flags().StringVar(&i.options, "cni-options", "{}", "`json` or file with JSON: options for the VMs of the node, those of prepare and serve in camel case, such as {\"podPorts\": \"8080\"}, and the plugin's own")
			i.node.Chain = true
		}},
		run: func(cmd *cobra.Command) (view, error) {
			if err := i.readOptions(p.hook.StateDir); err != nil {
				return view{}, err
			}
			return view{}, p.installer(cmd, &i, cniconf.Node.Installed, cniconf.Node.Install)
		},
	}
}

func (p *program) nodeUninstall() verb {
	var i install
	return verb{
		use:   "uninstall",
		short: "Remove the CNI plugin from the node",
		long: `Take the plugin out of the network configurations of the container runtime, and
remove the program from its plugins. While pods live that the plugin has prepared the
program stays, because some runtimes need it at their end; their VMs keep their network.

With --watch it waits for the end of these pods, and stays. With --check it changes
nothing, and fails if something is left.`,
		examples: []string{"node uninstall", "node uninstall --watch", "node uninstall --check"},
		flags:    []func(*cobra.Command){i.flags},
		run: func(cmd *cobra.Command) (view, error) {
			return view{}, p.installer(cmd, &i, cniconf.Node.Uninstalled, cniconf.Node.Uninstall)
		},
	}
}

func (i *install) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&i.node.BinDir, "cni-bin-dir", "/opt/cni/bin", "`directory` of the runtime's CNI plugins")
	cmd.Flags().StringVar(&i.node.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "`directory` of the runtime's network configurations")
	cmd.Flags().BoolVar(&i.watch, "watch", false, "stay, and do it again when somebody changes it")
	cmd.Flags().BoolVar(&i.check, "check", false, "change nothing; fail if there is something to do")
}

// readOptions reads what the plugin is to be configured with, and checks it before every
// pod of the node is given it.
func (i *install) readOptions(stateDir string) error {
	text := []byte(i.options)
	if !strings.HasPrefix(i.options, "{") {
		var err error
		if text, err = os.ReadFile(i.options); err != nil {
			return fmt.Errorf("read options of CNI: %w", err)
		}
	}
	if err := json.Unmarshal(text, &i.node.Entry); err != nil {
		return usagef("--cni-options: %w", err)
	}
	for _, key := range []string{"type", "capabilities", "name", "cniVersion", "prevResult", "runtimeConfig", "stateDir", "select"} {
		if _, ok := i.node.Entry[key]; ok {
			return usagef("--cni-options: %s can't be set here", key)
		}
	}
	if err := cniplugin.CheckConfig(text); err != nil {
		return usagef("--cni-options: %w", err)
	}
	if stateDir == "" {
		return nil
	}
	quoted, err := json.Marshal(stateDir)
	if err != nil {
		return fmt.Errorf("write state directory: %w", err)
	}
	entry := map[string]json.RawMessage{"stateDir": quoted}
	maps.Copy(entry, i.node.Entry)
	i.node.Entry = entry
	return nil
}

// installer checks, does once, or keeps.
func (p *program) installer(cmd *cobra.Command, i *install, check func(cniconf.Node) error, do func(cniconf.Node, context.Context) (bool, error)) error {
	if err := p.onNode(); err != nil {
		return err
	}
	n := i.node
	n.StateDir, n.Log = cmp.Or(p.hook.StateDir, prepare.DefaultStateDir), p.hook.Log
	switch {
	case i.watch && i.check:
		return usagef("--watch and --check can't go together")
	case i.check:
		return check(n)
	case i.watch:
		return n.Keep(cmd.Context(), func(ctx context.Context) (bool, error) { return do(n, ctx) })
	}
	_, err := do(n, cmd.Context())
	return err
}
