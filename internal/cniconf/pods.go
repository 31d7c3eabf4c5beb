package cniconf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
)

// ErrInUse is that pods live that the plugin has prepared. A runtime that keeps a pod's
// configuration, as CRI-O and Multus do, runs the plugin at the pod's end, and fails
// without it. containerd runs what is in the chain then, so the plugin hears nothing of
// the end: the node agent notices it, and removes the pod's state.
var ErrInUse = errors.New("pods with a VM still need the plugin")

// inUse returns [ErrInUse] with the pods' names, if there are any.
func (n Node) inUse() error {
	ids, err := attachment.Containers(n.StateDir)
	if err != nil {
		return err
	}
	var pods []string
	for _, id := range ids {
		switch attachments, err := attachment.OfContainer(n.StateDir, id); {
		case len(attachments) > 0:
			pods = append(pods, attachments[0].Pod.String())
		case err != nil: // it may live, whichever it is; nobody but its runtime or an administrator knows
			pods = append(pods, fmt.Sprintf("container %s (%v; if it has ended, remove %s)", id, err, attachment.Dir(n.StateDir, id)))
		}
	}
	if len(pods) == 0 {
		return nil
	}
	return fmt.Errorf("%s stays: %w: %s", n.binary(), ErrInUse, strings.Join(pods, ", "))
}
