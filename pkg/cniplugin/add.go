package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// add prepares an interface of the pod, if the pod is a VM's, and prints the result. What
// is prepared already stays as it is.
func add(ctx context.Context, c call) error {
	selected, asked, err := c.conf.selected()
	if err != nil {
		return err
	}
	result := c.conf.prev
	if result == nil {
		result = &types100.Result{}
	}
	if selected {
		if result, err = c.attach(ctx, asked); err != nil {
			return err
		}
	}
	if err := types.PrintResult(result, c.conf.version); err != nil {
		return types.NewError(types.ErrIOFailure, "print result", err.Error())
	}
	return nil
}

// attach prepares the interface, all of it or nothing, and tells the agent.
func (c call) attach(ctx context.Context, asked string) (result *types100.Result, err error) {
	dir := attachment.Dir(c.conf.stateDir, c.ContainerID)
	pod := podOf(c.Args)
	failed := func(err error) error {
		return fail(codePrepare, "prepare a NIC for the VM of the pod "+pod.String(), err)
	}
	if err := c.checkNetns(); err != nil {
		return nil, err
	}
	locked, err := attachment.Lock(ctx, c.conf.stateDir, c.ContainerID, true)
	if err != nil {
		return nil, failed(err)
	}
	defer locked.Close()
	defer func() {
		if err != nil {
			c.tidy(dir)
		}
	}()
	var a attachment.Attachment
	var earlier []attachment.Attachment
	if err = c.dropGone(ctx); err == nil {
		a, earlier, err = c.plan(ctx, pod, asked)
	}
	if err == nil {
		err = a.WritePending(c.conf.stateDir)
	}
	if err != nil {
		return nil, failed(err)
	}
	result, err = c.prepare(ctx, a)
	if err == nil {
		err = a.Confirm(c.conf.stateDir)
	}
	if err != nil {
		return nil, failed(errors.Join(err, c.undo(ctx, a, isAttached(earlier, a))))
	}
	if err := c.askAgent(ctx, agent.Client.Attach, a); err != nil {
		c.log.Warn("the pod is prepared for its VM, but not served yet by the node agent", "container", a.ContainerID, "interface", a.Interface, "error", err)
	}
	return result, nil
}

// plan says what is to be attached, beside what is.
func (c call) plan(ctx context.Context, pod attachment.Pod, asked string) (a attachment.Attachment, earlier []attachment.Attachment, err error) {
	if earlier, err = attachment.OfContainer(c.conf.stateDir, c.ContainerID); err != nil {
		return a, nil, err
	}
	netns, err := c.lastingNetns(ctx)
	if err != nil {
		return a, nil, err
	}
	a = attachment.Attachment{
		ContainerID: c.ContainerID, Netns: netns, IfName: c.IfName, Network: c.conf.network, Since: time.Now().UTC(), Pod: pod,
	}
	if a.Options, err = c.optionsFor(pod, asked, earlier); err != nil {
		return a, nil, err
	}
	if a.Interface, err = c.podInterface(ctx, earlier); err != nil {
		return a, nil, err
	}
	for _, e := range earlier {
		if !e.Since.Before(a.Since) { // the clock was set back meanwhile
			a.Since = e.Since.Add(1)
		}
	}
	for _, e := range earlier {
		switch {
		case e.Interface != a.Interface:
		case e.IfName != a.IfName || e.Network != a.Network:
			return a, nil, fmt.Errorf("%s is attached already, as %s of the network %s: name another interface", e.Interface, e.IfName, e.Network)
		default:
			a.Since = e.Since
		}
	}
	return a, earlier, nil
}

// podInterface is the name of the interface that the VM's NIC is made of: the one that
// the configuration names, the one that was attached before, CNI_IFNAME, or the one that
// the plugin before has made; else the pod's primary one.
func (c call) podInterface(ctx context.Context, earlier []attachment.Attachment) (string, error) {
	if c.conf.podInterface != "" {
		return c.conf.podInterface, nil
	}
	for _, e := range earlier {
		if e.IfName == c.IfName && e.Network == c.conf.network {
			return e.Interface, nil
		}
	}
	names := []string{c.IfName}
	if c.conf.prev != nil {
		for _, i := range c.conf.prev.Interfaces {
			if i.Sandbox != "" {
				names = append(names, i.Name)
			}
		}
	}
	if slices.Contains(names[1:], c.IfName) { // who made it has said so
		return c.IfName, nil
	}
	h := c.hook(c.ContainerID, c.Netns)
	var there []discover.Interface
	err := h.InNetns(func() (err error) {
		there, err = discover.ReadInterfaces()
		return err
	})
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if slices.ContainsFunc(there, func(i discover.Interface) bool { return i.Name == name }) {
			return name, nil
		}
	}
	found, err := h.Discover(ctx)
	if err != nil {
		return "", err
	}
	return found.Interfaces[0].Name, nil
}

// prepare prepares the interface and returns what the runtime is told.
func (c call) prepare(ctx context.Context, a attachment.Attachment) (*types100.Result, error) {
	h, err := c.hookOf(a)
	if err != nil {
		return nil, err
	}
	prepared, err := h.Prepare(ctx)
	if err != nil {
		return nil, err
	}
	return c.newResult(h, prepared[0])
}

// undo takes back what of an attachment that failed is left, and leaves one that was
// there before.
func (c call) undo(ctx context.Context, a attachment.Attachment, attached bool) error {
	if !attached {
		if err := c.restore(context.WithoutCancel(ctx), a.ContainerID, []attachment.Attachment{a}, false); err != nil {
			return fmt.Errorf("restore: %w", err) // DEL tries again
		}
	}
	return attachment.RemovePending(c.conf.stateDir, a.ContainerID, a.Interface)
}

func isAttached(earlier []attachment.Attachment, a attachment.Attachment) bool {
	return slices.ContainsFunc(earlier, func(e attachment.Attachment) bool { return e.Interface == a.Interface })
}

// tidy removes the directory of a container that has nothing attached, nor prepared: DEL puts
// that back by its record, also where somebody has deleted its attachment. Who calls has it
// locked.
func (c call) tidy(dir string) {
	if all, err := c.attachments(c.ContainerID); err != nil || len(all) > 0 || isRecorded(dir) {
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		c.log.Warn("can't remove the state of a container", "directory", dir, "error", err)
	}
}
