// Package cniplugin is the program as a CNI plugin (CNI specification 1.1.0, and back to
// 0.3.1): it prepares a pod interface for a VM while the runtime makes the pod, and puts
// it back when the pod goes. What it has prepared the node agent serves.
//
// What the plugin knows of a container is in a directory of the container's own:
// attachments, and the records of package prepare. One call at a time has it.
package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Command is the name of the environment variable that says what a runtime wants of a
// plugin. Where it is empty nobody has called one.
const Command = "CNI_COMMAND"

// Main does what the environment and standard input say, prints the result or the error
// on standard output, logs to standard error, and returns the exit code. A call that ctx
// ends is undone.
func Main(ctx context.Context) int {
	with := func(do func(context.Context, call) error, read func([]byte) (config, error)) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error {
			conf, err := read(args.StdinData)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, conf.timeout, &prestart.TimeoutError{After: conf.timeout})
			defer cancel()
			return do(ctx, call{args, conf, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: conf.logLevel})), new(bool)})
		}
	}
	failure := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    with(add, readConfig),
		Check:  with(check, readConfig),
		Status: with(status, readConfig),
		// What is to be taken back is in the state directory, whatever was changed in the
		// configuration since.
		Del: with(del, readBase),
		GC:  with(collect, readBase),
	}, version.VersionsStartingFrom("0.3.1"), "")
	if failure == nil {
		return 0
	}
	if err := failure.Print(); err != nil {
		fmt.Fprintf(os.Stderr, "virt-launcher-net: print error: %v: %v\n", err, failure)
	}
	return 1
}

// agentTimeout is how long the agent may take to answer, and half of a call's time at
// most: the rest is for what the call itself does.
const agentTimeout = 5 * time.Second

// call is one call of the plugin.
type call struct {
	*skel.CmdArgs
	conf config
	log  *slog.Logger
	// agentIsSilent is whether the agent has not answered in time: it is not asked again.
	agentIsSilent *bool
}

// hook acts on interfaces of a container, all that are prepared if none are named, in its
// network namespace.
func (c call) hook(containerID, netns string, interfaces ...string) prestart.Hook {
	return prestart.Hook{
		Netns: netns, StateDir: attachment.Dir(c.conf.stateDir, containerID), Interfaces: interfaces, NoIdentity: true,
		RestoreAfter: true, // by DEL: nothing is to be warned of that this avoids
		Log:          c.log.With("container", containerID),
	}
}

// hookOf acts on the interface of an attachment, by its options.
func (c call) hookOf(a attachment.Attachment) (prestart.Hook, error) {
	o, err := a.Settings()
	h := c.hook(a.ContainerID, a.Netns, a.Interface)
	h.Network, h.Lease, h.Model = o.Network, o.Lease, o.Model
	return h, err
}

// askAgent has the agent do something with a NIC. That is no condition of a call's
// success: an agent may be upgraded just now, and finds what is attached when it starts.
func (c call) askAgent(ctx context.Context, do func(agent.Client, context.Context, string, string) error, a attachment.Attachment) error {
	timeout := min(agentTimeout, c.conf.timeout/2)
	silent := fmt.Errorf("it does not answer within %s", timeout)
	if *c.agentIsSilent {
		return silent
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), timeout, silent)
	defer cancel()
	err := do(agent.Client{StateDir: c.conf.stateDir}, ctx, a.ContainerID, a.Interface)
	*c.agentIsSilent = ctx.Err() != nil
	return err
}

// attachments are those of a container, and what a call that was killed has left of some.
// What can't be read is in the error, beside the others.
func (c call) attachments(containerID string) ([]attachment.Attachment, error) {
	all, err := attachment.OfContainer(c.conf.stateDir, containerID)
	pending, pendingErr := attachment.PendingOfContainer(c.conf.stateDir, containerID)
	return slices.Concat(all, pending), errors.Join(err, pendingErr)
}
