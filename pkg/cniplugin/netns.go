package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// checkNetns refuses what is no pod's network namespace.
func (c call) checkNetns() error {
	pods, err := statedir.Of(c.Netns)
	if err == nil {
		var own statedir.Namespace
		if own, err = statedir.Of(""); err == nil && own.Same(pods) {
			err = fmt.Errorf("%s is the plugin's own", c.Netns)
		}
	}
	if err != nil {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_NETNS names no network namespace of a pod", err.Error())
	}
	return nil
}

// dropGone detaches what the container has attached in a network namespace that is no more,
// as where its sandbox is made anew. One that is still there DEL has to put back.
func (c call) dropGone(ctx context.Context) error {
	own, err := statedir.Of(c.Netns)
	if err != nil {
		return err
	}
	all, _ := c.attachments(c.ContainerID) // plan tells what can't be read
	for _, a := range all {
		ns, err := statedir.Of(a.Netns)
		switch {
		case err == nil && ns.Same(own):
			// After a restart of the node the path may be the new sandbox's.
			if !statedir.IsOfAnother(attachment.Dir(c.conf.stateDir, a.ContainerID), a.Interface, own) {
				continue
			}
		case err == nil:
			return fmt.Errorf("the container has %s attached in another network namespace, %s: delete that first (DEL)", a.Interface, a.Netns)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, statedir.ErrNoNamespace):
			return err
		}
		c.endService(ctx, a)
		if err := attachment.Remove(c.conf.stateDir, a.ContainerID, a.Interface); err != nil {
			return err
		}
	}
	return nil
}

// lastingNetns is the path at which the agent finds the pod's network namespace. cri-dockerd
// names it by a process, which may end, and which an agent that has processes of its own does
// not see: Docker has it mounted at another path, too.
func (c call) lastingNetns(ctx context.Context) (string, error) {
	if !strings.HasPrefix(filepath.Clean(c.Netns), "/proc/") {
		return c.Netns, nil
	}
	ns, err := statedir.Of(c.Netns)
	if err != nil {
		return "", err
	}
	path, err := statedir.MountOf(ns)
	if err != nil || path != "" {
		return path, err
	}
	if c.agentIsApart(ctx) {
		return "", types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_NETNS names a network namespace that the node agent can't open",
			c.Netns+": it is mounted nowhere, and the agent does not see the node's processes: use a container runtime that mounts network namespaces, as containerd and CRI-O do below /run/netns, and Docker below /run/docker/netns")
	}
	return c.Netns, nil
}

// agentIsApart tells whether there is an agent that sees other processes than this one does.
func (c call) agentIsApart(ctx context.Context) bool {
	conn, peer, err := statedir.Dial(ctx, filepath.Join(c.conf.stateDir, attachment.SocketName))
	if err != nil {
		return false
	}
	defer conn.Close()
	own, err := os.Readlink("/proc/self/ns/pid")
	agents, agentsErr := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", peer.Pid))
	return err == nil && agentsErr == nil && own != agents
}
