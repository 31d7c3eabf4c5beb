package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// What could not be served is tried again after firstRetry, then each time after twice
// as long, up to lastRetry.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Minute
)

// recreate is the way out where the plugin would have to prepare a NIC again.
const recreate = "recreate the pod: the CNI plugin prepares its network while the pod is created"

// errUnseen is the way out where the plugin has just been in a network namespace that the
// agent does not find at the same path.
var errUnseen = errors.New("the agent's container has to have the container runtime's directory of network namespaces mounted at the same path, with mountPropagation: HostToContainer; if it was made anew on the node, start the agent again")

// errForbidden is the way out where the network namespace is named by a process, at which the
// agent has laid down the right to look.
var errForbidden = errors.New("the agent may not open the network namespace of a process: have it mounted, as `ip netns attach NAME PID` does below /run/netns, and name that path (CNI_NETNS)")

// pod is one pod while it has a NIC that is attached.
type pod struct {
	id   string
	work sync.Mutex // held while its NICs come and go

	// What follows is changed under the agent's lock, and session under work, too.
	netns   string
	name    attachment.Pod
	session *prestart.Session // nil: there is none
	nics    map[string]*nic
	gone    bool // it is not the agent's any more
}

// nic is an attachment.
type nic struct {
	attachment.Attachment
	err   error         // why it is not served; nil: it is, or is about to be
	pause time.Duration // before it is tried again
	retry *time.Timer   // nil: it is not tried again
	// deleted is what somebody has deleted of its files while it is served, and what
	// follows; empty: nothing.
	deleted string
}

// attach serves the attachment that is written.
func (a *Agent) attach(ctx context.Context, container, name string) error {
	at, err := attachment.Read(a.stateDir, container, name)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if a.isUnreadable(container, err) { // the plugin attaches nothing where it can't read all
		time.AfterFunc(readAgain, func() { a.serveContainer(ctx, container) }) // which goes on until they can be read
	}
	if err != nil {
		return err
	}
	err = a.serve(ctx, at)
	a.forgetGone(ctx, at.Netns) // which may have been another pod's until now
	return err
}

// serve serves a NIC as its attachment says. If that fails, it tries again later.
func (a *Agent) serve(ctx context.Context, at attachment.Attachment) error {
	p, err := a.lockPod(at)
	if err != nil {
		return err
	}
	defer p.work.Unlock()
	if a.isServed(p, at) {
		return nil
	}
	select {
	case a.starting <- struct{}{}:
		defer func() { <-a.starting }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if isGone(at.Netns) {
		a.forget(ctx, p)
		return fmt.Errorf("serve %s of pod %s: network namespace %s: %w: %w", at.Interface, at.Pod, at.Netns, fs.ErrNotExist, errUnseen)
	}
	err = a.open(ctx, p, at)
	a.changed()
	if a.keep(ctx, p, at, err) {
		a.logOf(at).Error("a NIC is not served", "interface", at.Interface, "error", err)
	}
	a.missFiles(attachment.Dir(a.stateDir, p.id)) // of which nobody tells before it is kept
	return err
}

// lockPod returns the pod of an attachment, to be worked on.
func (a *Agent) lockPod(at attachment.Attachment) (*pod, error) {
	for {
		a.mu.Lock()
		p := a.pods[at.ContainerID]
		if p == nil {
			p = &pod{id: at.ContainerID, netns: at.Netns, name: at.Pod, nics: map[string]*nic{}}
			a.pods[p.id] = p
		}
		closed := a.closed
		a.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		p.work.Lock()
		if !p.gone {
			return p, nil
		}
		p.work.Unlock()
	}
}

// isServed tells whether the NIC is served as it should be.
func (a *Agent) isServed(p *pod, at attachment.Attachment) bool {
	a.mu.Lock()
	n := p.nics[at.Interface]
	a.mu.Unlock()
	if n == nil || n.err != nil || p.session == nil || n.Netns != at.Netns || p.isGone() || !maps.EqualFunc(n.Options, at.Options, sameJSON) {
		return false
	}
	served := p.session.Status().Of(at.Interface)
	return served.Name != "" && served.Error == "" && len(served.Differences) == 0
}

func sameJSON(a, b json.RawMessage) bool { return string(a) == string(b) }

// open serves a NIC of the pod, in the place of what was served before.
func (a *Agent) open(ctx context.Context, p *pod, at attachment.Attachment) error {
	options, err := at.Settings()
	if err != nil {
		return err
	}
	if p.session != nil {
		same, err := p.session.Serves(at.Netns) // whatever path it has: /run/netns is /var/run/netns, too
		if err != nil {
			return err
		}
		if !same || p.isGone() { // the sandbox was made anew, and its other NICs are attached anew, too
			a.dropNICs(p)
			a.closeSession(ctx, p)
		}
	}
	if p.session == nil {
		a.mu.Lock()
		p.netns, p.name = at.Netns, at.Pod // also where it can't be served yet: the end of the one before is not its end
		a.mu.Unlock()
		if err := a.watchFor(at.Netns); err != nil {
			a.logOf(at).Warn("can't watch for the end of the pod: only the CNI plugin ends serving it", "netns", at.Netns, "error", err)
		}
		if err := a.watchDir(attachment.Dir(a.stateDir, p.id)); err != nil {
			a.logOf(at).Warn("can't watch the pod's files: nobody tells if they are deleted", "error", err)
		}
		session, err := a.hook(ctx, p, at).Open(ctx)
		if err != nil {
			switch _, unseen := statedir.Of(at.Netns); {
			case errors.Is(unseen, fs.ErrPermission) && strings.HasPrefix(at.Netns, "/proc/"):
				err = fmt.Errorf("%w: %w", err, errForbidden)
			case unseen != nil:
				err = fmt.Errorf("%w: %w", err, errUnseen)
			}
			return err
		}
		a.mu.Lock()
		p.session = session
		a.mu.Unlock()
	}
	if name := &options.Lease.Hostname; *name != "" && guest.CheckHostname(*name) != nil { // a plugin of an older version took it
		a.logOf(at).Warn("the VM gets no host name", "interface", at.Interface, "error", guest.CheckHostname(*name))
		*name = ""
	}
	if err := p.session.Remove(at.Interface); err != nil && !isNotFound(err) {
		return err
	}
	err = p.session.Add(ctx, at.Interface, prestart.InterfaceOptions{Network: &options.Network, Lease: &options.Lease, Model: options.Model})
	if isNotOurs(err) && len(p.session.Interfaces()) == 0 {
		a.closeSession(ctx, p) // one pod at a time is served in a namespace
	}
	return err
}

// isNotOurs tells whether nothing is recorded to be prepared for the container in the
// network namespace at its path: that may be another container's by now.
func isNotOurs(err error) bool {
	return errors.Is(err, prestart.ErrNotPrepared) || errors.As(err, new(*prepare.UnrecordedError))
}

// hook is that of the pod's session.
func (a *Agent) hook(ctx context.Context, p *pod, at attachment.Attachment) prestart.Hook {
	return prestart.Hook{
		Netns: at.Netns, StateDir: attachment.Dir(a.stateDir, p.id), NoIdentity: true, PodSocket: true, Repair: true, Remedy: recreate, Version: a.version,
		Log:    a.logOf(at),
		Failed: func(err *prestart.ServeError) { a.failed(ctx, p, err) },
	}
}

// logOf says of which pod it is.
func (a *Agent) logOf(at attachment.Attachment) *slog.Logger {
	return a.log.With("namespace", at.Pod.Namespace, "pod", at.Pod.Name)
}

// keep keeps what became of serving a NIC. One that is not served is tried again, except
// where only another attachment can help. isNew is whether the error was another, or none,
// before. The pod is being worked on.
func (a *Agent) keep(ctx context.Context, p *pod, at attachment.Attachment, err error) (isNew bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := p.nics[at.Interface]
	n := &nic{Attachment: at, err: err}
	p.nics[at.Interface] = n
	if was != nil && was.retry != nil {
		was.retry.Stop()
	}
	if err == nil || ctx.Err() != nil {
		return false
	}
	n.pause = firstRetry
	if was != nil && was.pause > 0 {
		n.pause = min(2*was.pause, lastRetry)
	}
	if _, invalid := at.Settings(); invalid == nil {
		n.retry = time.AfterFunc(n.pause, func() { a.again(ctx, p.id, at.Interface) })
	}
	return was == nil || was.err == nil || was.err.Error() != err.Error()
}

// again tries again to serve a NIC, if it is still attached.
func (a *Agent) again(ctx context.Context, container, name string) {
	if _, err := attachment.Read(a.stateDir, container, name); errors.Is(err, fs.ErrNotExist) {
		_ = a.detach(ctx, container, name) // it is not served
		return
	}
	_ = a.attach(ctx, container, name) // it is logged, and tried again
}

// failed is called when a NIC that was served is not any more.
func (a *Agent) failed(ctx context.Context, p *pod, err *prestart.ServeError) {
	p.work.Lock()
	defer p.work.Unlock()
	a.mu.Lock()
	n := p.nics[err.Interface]
	a.mu.Unlock()
	if n == nil || n.err != nil || p.session == nil || p.session.Status().Of(err.Interface).Error == "" {
		return // it was let go of, or is served again
	}
	a.keep(ctx, p, n.Attachment, err) // the session has logged it
}
