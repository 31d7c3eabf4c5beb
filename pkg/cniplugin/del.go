package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// del puts back what add has prepared, as far as it is there.
func del(ctx context.Context, c call) error {
	return c.detach(ctx, c.ContainerID, func(a attachment.Attachment) bool {
		return a.IfName == c.IfName && a.Network == c.conf.network
	})
}

// collect deletes what the network has attached and no container owns, and what is left of
// pods that are gone of which no attachment can be read.
func collect(ctx context.Context, c call) error {
	containers, err := attachment.Containers(c.conf.stateDir)
	if err != nil {
		return fail(codeRestore, "list what is attached", err)
	}
	var errs []error
	for _, id := range containers {
		owned := func(a attachment.Attachment) bool {
			return a.Network != c.conf.network || slices.Contains(c.conf.valid, types.GCAttachment{ContainerID: id, IfName: a.IfName})
		}
		all, err := c.attachments(id)
		if err != nil {
			c.log.Warn("can't read what a container has attached", "container", id, "error", err)
		}
		if len(all) == 0 {
			errs = append(errs, c.collectAbandoned(ctx, id))
		}
		if slices.ContainsFunc(all, func(a attachment.Attachment) bool { return !owned(a) }) {
			errs = append(errs, c.detach(ctx, id, func(a attachment.Attachment) bool { return !owned(a) }))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return types.NewError(codeRestore, "clear what no container owns", err.Error())
	}
	return nil
}

// collectAbandoned deletes the directory of a container if it is abandoned. Those that are named after a namespace
// are not the plugin's.
func (c call) collectAbandoned(ctx context.Context, id string) error {
	if strings.HasPrefix(id, "netns-") {
		return nil
	}
	dir := attachment.Dir(c.conf.stateDir, id)
	locked, err := attachment.Lock(ctx, c.conf.stateDir, id, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer locked.Close()
	if all, _ := c.attachments(id); len(all) > 0 { // one may have come meanwhile
		return nil
	}
	abandoned, err := isAbandoned(c.conf.stateDir, id)
	if err != nil || !abandoned {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the state of the container %s: %w", id, err)
	}
	c.log.Info("removed the state of a pod that is gone", "container", id)
	return nil
}

// isAbandoned tells whether a container that has nothing attached, as far as can be read,
// left its directory: its network namespace is gone, or an ADD ended before it had anything.
func isAbandoned(base, id string) (bool, error) {
	dir := attachment.Dir(base, id)
	names, err := attachment.Names(base, id)
	if err != nil {
		return false, err
	}
	records, err := statedir.Records(dir)
	if err != nil || len(names) == 0 && len(records) == 0 {
		return err == nil, err
	}
	return statedir.Abandoned(dir)
}

// detach takes back those attachments of a container that are meant. That there is
// nothing to be done is no error.
func (c call) detach(ctx context.Context, id string, meant func(attachment.Attachment) bool) error {
	failed := func(err error) error { return fail(codeRestore, "take the VM's NIC of the container "+id+" back", err) }
	locked, err := attachment.Lock(ctx, c.conf.stateDir, id, false)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENAMETOOLONG): // ADD could not make one of such a name
		return nil
	case errors.Is(err, unix.ENOTDIR): // nor where something else has the name
		c.log.Warn("nothing is known of what a container has attached", "container", id, "error", err)
		return nil
	}
	if err != nil {
		return failed(err)
	}
	defer locked.Close()
	these, last := c.meant(id, meant)
	if len(these) == 0 && !last {
		return nil
	}
	for _, a := range these {
		c.endService(ctx, a)
	}
	err = c.restore(ctx, id, these, last)
	if err == nil {
		err = c.forget(id, these, last)
	}
	if err != nil {
		return failed(err)
	}
	return nil
}

// forget removes what is kept of attachments; of the container, if they are the last.
func (c call) forget(id string, these []attachment.Attachment, last bool) error {
	dir := attachment.Dir(c.conf.stateDir, id)
	var err error
	if last {
		err = os.RemoveAll(dir)
	}
	for _, a := range these {
		if !last {
			err = errors.Join(err, attachment.Remove(c.conf.stateDir, id, a.Interface))
		}
	}
	switch {
	case errors.Is(err, unix.EROFS) && !isRecorded(dir):
		c.log.Warn("what an ADD has left that prepared nothing stays", "container", id, "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("remove the state of the container: %w", err)
	}
	return nil
}

// meant are those attachments of a container that are meant; last is whether it has no
// others. Of one that can't be read nothing tells whose it is: DEL means it that names its
// interface, and no other NIC's does, so that the VM does not lose it while the pod lives.
func (c call) meant(id string, meant func(attachment.Attachment) bool) (these []attachment.Attachment, last bool) {
	all, err := c.attachments(id)
	if err != nil {
		c.log.Warn("can't read what a container has attached", "container", id, "error", err)
	}
	last = true
	for _, a := range all {
		if meant(a) {
			these = append(these, a)
		} else {
			last = false
		}
	}
	names, _ := attachment.Names(c.conf.stateDir, id) // the error is told above
	for _, name := range names {
		switch {
		case slices.ContainsFunc(all, func(a attachment.Attachment) bool { return a.Interface == name }):
		case name == c.IfName:
			these = append(these, attachment.Attachment{ContainerID: id, Interface: name, Netns: c.Netns})
		default:
			last = false
		}
	}
	return these, last
}

// endService has the agent let go of a NIC, whose sockets keep the network namespace.
func (c call) endService(ctx context.Context, a attachment.Attachment) {
	if err := c.askAgent(ctx, agent.Client.Detach, a); err != nil && !errors.Is(err, agent.ErrNoAgent) {
		c.log.Warn("the node agent did not stop serving the pod", "container", a.ContainerID, "interface", a.Interface, "error", err)
	}
}

// restore puts the pod's interfaces back, all that are prepared if the attachments are
// the last, where their network namespace still lives. The runtime may have lost its path,
// and a path may be another namespace's by now, which the records tell apart.
func (c call) restore(ctx context.Context, id string, these []attachment.Attachment, last bool) error {
	var paths, names []string
	if id == c.ContainerID {
		paths = append(paths, c.Netns)
	}
	for _, a := range these {
		paths, names = append(paths, a.Netns), append(names, a.Interface)
	}
	slices.Sort(names) // one may be attached, and pending
	if names = slices.Compact(names); last {
		names = nil
	}
	var done []statedir.Namespace
	for _, path := range paths {
		ns, err := statedir.Of(path)
		if path == "" || err != nil || slices.ContainsFunc(done, ns.Same) {
			continue
		}
		done = append(done, ns)
		h := c.hook(id, path, names...)
		h.Force = true
		_, err = h.Restore(ctx)
		switch {
		case errors.As(err, new(*prepare.UnrecordedError)):
			c.log.Warn("the pod's interface stays as it is: nothing says what it was", "container", id, "error", err)
		case (hasNoRoom(err) || errors.Is(err, unix.EROFS)) && !isRecorded(h.StateDir): // nor could ADD write, which changed nothing then
		case err != nil:
			return err
		}
	}
	return nil
}

// isRecorded tells whether something may be prepared: its record is written first.
func isRecorded(dir string) bool {
	records, err := statedir.Records(dir)
	return err != nil || len(records) > 0
}
