package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/virt-launcher-net/virt-launcher-net/internal/metric"
	"github.com/virt-launcher-net/virt-launcher-net/internal/monitor"
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
node, it waits for its end. Repairs a port guard that another program deletes or
changes. Needs SYS_ADMIN and NET_RAW; without NET_ADMIN the port guards are neither
watched, repaired nor counted. Gives up all other capabilities.`,
		examples: []string{"node", "node --listen :9100 --log-format json", "node status"},
		flags:    []func(*cobra.Command){p.monitorFlags},
		run: func(cmd *cobra.Command) (view, error) {
			if err := p.onNode(); err != nil {
				return view{}, err
			}
			return view{}, p.serveNode(cmd.Context())
		},
		verbs: []verb{p.nodeStatus(), p.nodeInstall(), p.nodeUninstall()},
	}
}

func (p *program) serveNode(ctx context.Context) (err error) {
	signal.Ignore(unix.SIGPIPE) // who reads the log may end sooner
	if err := p.keepNodePrivileges(); err != nil {
		return err
	}
	collectAt(50)
	if _, set := os.LookupEnv("GOMAXPROCS"); !set {
		runtime.SetDefaultGOMAXPROCS() // many pods can have something to do at once
	}
	var m *monitor.Monitor
	var a *agent.Agent
	listen := func(ctx context.Context) (err error) {
		if p.listen == "" || m != nil {
			return nil
		}
		if m, err = monitor.Listen(ctx, p.hook.Log, p.listen, version); err == nil {
			m.WatchPods(a.NotReady, func() []metric.Pod { return podsOf(a) })
		}
		return err
	}
	a = agent.New(agent.Options{
		StateDir: p.hook.StateDir, Version: version, Log: p.hook.Log, Settled: giveBackMemory,
		Begin: func(ctx context.Context) error { return whileInUse(ctx, listen) },
	})
	// An agent that serves the node still has the address, where both were told the same, and
	// answers the probes of both.
	if err := listen(ctx); err != nil && !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	defer func() {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	return a.Run(ctx)
}

// whileInUse tries again to listen for some seconds: an agent that ends lets go of the node
// a little before it lets go of its address.
func whileInUse(ctx context.Context, listen func(context.Context) error) error {
	for start := time.Now(); ; {
		err := listen(ctx)
		if !errors.Is(err, unix.EADDRINUSE) || time.Since(start) > 5*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// collectAt has the heap collected once it has grown by so many percent of what lives, and
// is as many percent of 4 MiB, unless the environment says otherwise. Most pods wait, and
// memory is worth more than time.
func collectAt(percent int) {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(percent)
	}
}

// giveBackMemory gives back what is needed no more: to begin to serve a NIC takes ten times
// the memory that it needs from then on.
func giveBackMemory() {
	for range 3 { // each halves the stacks that were larger once
		runtime.GC()
	}
	debug.FreeOSMemory()
}

// podsOf are the pods of an agent as they are measured.
func podsOf(a *agent.Agent) (pods []metric.Pod) {
	for _, p := range a.Status().Pods {
		guards, _ := a.GuardCounters(p.ContainerID) // what can't be read is not there
		pods = append(pods, metric.Pod{Namespace: p.Namespace, Name: cmp.Or(p.Name, p.ContainerID), Status: p.Served, Guards: guards})
	}
	return pods
}

// keepNodePrivileges gives up all privileges but what the agent needs as long as it
// runs, and tells what of that is missing.
func (p *program) keepNodePrivileges() error {
	has := cap.GetProc()
	for name, why := range map[cap.Value]string{cap.SYS_ADMIN: "enter the pods' network namespaces", cap.NET_RAW: "open sockets on the VMs' taps"} {
		if ok, err := has.GetFlag(cap.Permitted, name); err != nil || !ok {
			return fmt.Errorf("%s: %w: this needs the capability %s (securityContext.capabilities.add)", why, unix.EPERM, strings.ToUpper(strings.TrimPrefix(name.String(), "cap_")))
		}
	}
	if ok, err := has.GetFlag(cap.Permitted, cap.NET_ADMIN); err != nil || !ok {
		p.hook.Log.Warn("the port guards are neither watched, repaired nor counted: this needs the capability NET_ADMIN")
	}
	if err := errors.Join(giveUpPrivileges(false, cap.SYS_ADMIN, cap.NET_RAW, cap.NET_ADMIN), takeUpPrivileges()); err != nil {
		p.hook.Log.Warn("can't give up privileges that are not needed", "error", err)
	}
	return nil
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
					if l.IsKept() {
						state += ", no VM there"
					}
				}
			}
			ready := "yes"
			if pod.Deleted[i.Name] != "" {
				ready += ", but " + pod.Deleted[i.Name]
			}
			switch {
			case i.Error != "":
				ready = "no: " + i.Error
			case len(i.Differences) > 0:
				d := i.Differences[0] // the log and JSON have all
				ready = fmt.Sprintf("no: %s: %s", d, d.Remedy)
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
