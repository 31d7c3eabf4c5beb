package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
)

// check tells what differs from what add has prepared.
func check(ctx context.Context, c call) error {
	selected, _, err := c.conf.selected()
	if err != nil || !selected {
		return err
	}
	failed := func(err error) error {
		return fail(codeCheck, "the NIC for the VM of the pod "+podOf(c.Args).String()+" is not as it was prepared", err)
	}
	all, err := attachment.OfContainer(c.conf.stateDir, c.ContainerID)
	i := slices.IndexFunc(all, func(a attachment.Attachment) bool { return a.IfName == c.IfName && a.Network == c.conf.network })
	if i < 0 {
		return failed(errors.Join(errors.New("it is not attached: add it"), err))
	}
	h, err := c.hookOf(all[i])
	if err != nil {
		return failed(err)
	}
	h.Netns = c.Netns
	status, err := h.Status(ctx)
	if err != nil {
		return failed(err)
	}
	if !status.Prepared {
		return failed(fmt.Errorf("%s is not prepared: add it again", all[i].Interface))
	}
	var found []string
	for _, d := range status.Interfaces[0].Differences {
		found = append(found, d.String())
	}
	tap := c.tap(status.Interfaces[0].NIC)
	if c.conf.prev != nil && !slices.ContainsFunc(c.conf.prev.Interfaces, func(i *types100.Interface) bool { return i.Name == tap.Name && i.Mac == tap.Mac }) {
		found = append(found, "prevResult does not have the tap "+tap.Name+" with the MAC "+tap.Mac)
	}
	if len(found) > 0 {
		return failed(errors.New(strings.Join(found, "; ")))
	}
	return nil
}

// status tells why no pod can be added. That pods of VMs alone can't is told when one is,
// since a node that says so here gets no pods at all.
func status(_ context.Context, c call) error {
	if !c.conf.all {
		return nil
	}
	err := c.conf.checkOptions()
	if err == nil {
		err = tun.Supported()
	}
	if err == nil {
		err = canWrite(c.conf.stateDir)
	}
	if err != nil {
		return fail(codeUnavailable, "the plugin can prepare no NIC for a VM on this node", err)
	}
	return nil
}

// canWrite tells why a record could not be written to the state directory.
func canWrite(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	var f *os.File
	if err == nil {
		f, err = os.CreateTemp(dir, ".status")
	}
	if err == nil {
		_, err = f.WriteString("a record has some bytes")
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return fmt.Errorf("write to state directory: %w", err)
	}
	return nil
}
