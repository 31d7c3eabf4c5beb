package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

func (p *program) node() verb {
	return verb{
		use:   "node",
		short: "Serve the VMs of all pods of the node that the CNI plugin has prepared",
		long: `Serve DHCP, DHCPv6 and router advertisements to the VMs of all pods of the node that
the CNI plugin has prepared, until SIGTERM, SIGINT or SIGHUP. It can be stopped and
started at any time: VMs keep their network meanwhile. While another one runs on the
node, it waits for its end. Needs SYS_ADMIN, NET_ADMIN and NET_RAW.`,
		examples: []string{"node", "node --state-dir /run/vms --log-format json", "node status"},
		run: func(cmd *cobra.Command) (view, error) {
			if err := p.onNode(); err != nil {
				return view{}, err
			}
			a := agent.New(agent.Options{StateDir: p.hook.StateDir, Version: version, Log: p.hook.Log})
			return view{}, a.Run(cmd.Context())
		},
		verbs: []verb{p.nodeStatus(), p.nodeInstall(), p.nodeUninstall()},
	}
}

func (p *program) nodeStatus() verb {
	return verb{
		use:      "status",
		short:    "Print what the node's agent serves",
		long:     "Print each NIC that the node's agent serves, and why one is not served.",
		examples: []string{"node status", "node status -o json"},
		run: func(cmd *cobra.Command) (view, error) {
			if err := p.onNode(); err != nil {
				return view{}, err
			}
			status, err := agent.Client{StateDir: p.hook.StateDir}.Status(cmd.Context())
			return view{status, func(w io.Writer) { writeNode(w, status) }}, err
		},
	}
}

// onNode refuses what is about one pod.
func (p *program) onNode() error {
	if p.hook.Netns != "" || len(p.hook.Interfaces) > 0 {
		return usagef("node is about all pods: leave out --netns and --interface")
	}
	return nil
}

func writeNode(w io.Writer, s agent.Status) {
	fmt.Fprintln(w, "NAMESPACE\tPOD\tINTERFACE\tADDRESS\tLEASE\tREADY")
	for _, pod := range s.Pods {
		for _, i := range pod.Served.Interfaces {
			var addresses []string
			state := "none to give"
			for _, l := range []*lease.Status{i.Lease6, i.Lease} {
				if l != nil {
					addresses, state = append([]string{l.Address.Addr().String()}, addresses...), string(l.State)
				}
			}
			ready := "yes"
			if i.Error != "" || len(i.Differences) > 0 {
				ready = "no: the network is not as planned"
			}
			if _, failed := pod.NotServed[i.Name]; !failed {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", pod.Namespace, pod.Name, i.Name, strings.Join(addresses, " "), state, ready)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(pod.NotServed)) {
			fmt.Fprintf(w, "%s\t%s\t%s\t\t\tno: %s\n", pod.Namespace, pod.Name, name, pod.NotServed[name])
		}
	}
	rows(w, "not read", "%s", s.Errors...)
}
