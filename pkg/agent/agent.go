// Package agent serves the VMs of all pods of a node from one process: DHCP, DHCPv6 and
// router advertisements of each NIC that the CNI plugin has prepared. It learns of NICs by
// the plugin's word on a socket, and when it starts by the attachments below its state
// directory. It prepares nothing and needs no device; VMs keep their network whether it
// runs or not.
//
//	a := agent.New(agent.Options{Log: log})
//	err := a.Run(ctx)
//
// On the socket, HTTP with JSON, for root alone:
//
//	PUT    /v1/attachments/{containerID}/{interface}    serve it
//	DELETE /v1/attachments/{containerID}/{interface}    let go of it
//	GET    /v1/status                                   a [Status]
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

const (
	// lockName is the file in the state directory that one agent has locked.
	lockName = "node.lock"
	// atOnce is how many pods are worked on at a time: the kernel does one after the
	// other anyway (rtnl_mutex).
	atOnce = 8
	// closeAtOnce is how many pods are closed at a time: the kernel waits for all
	// processors before it closes a packet socket, for many at once as long as for one.
	closeAtOnce = 64
	// readAgain is after how long an attachment is read again that could not be.
	readAgain = 5 * time.Second
	// lookAgain is how often one looks for what nobody tells.
	lookAgain = 5 * time.Second
	// settleTime is how long nothing must have come or gone.
	settleTime = 10 * time.Second
)

// errUnreachable ends an agent of which no plugin could tell that there is a pod: the next
// one makes a socket anew.
var errUnreachable = errors.New("somebody has removed the agent's socket, or its directory")

// Options say how an agent works. The zero value is good.
type Options struct {
	// StateDir is where attachments and the socket are; empty: [prepare.DefaultStateDir].
	StateDir string
	// Version is shown in the status.
	Version string
	// Log gets what is done and why; nil is silent.
	Log *slog.Logger
	// Begin is called once no other agent serves the node, before this one does. Its error
	// ends the agent. nil: nothing else is to begin.
	Begin func(context.Context) error
	// Settled is called when for ten seconds no NIC has come or gone, once after each time
	// that some did; nil: nobody is told.
	Settled func()
}

// Agent serves the VMs of a node. Its methods can be called from any goroutine.
type Agent struct {
	stateDir string
	version  string
	log      *slog.Logger
	starting chan struct{} // has room for who may work on a pod
	begin    func(context.Context) error
	settled  *time.Timer // which each change begins anew; nil: nobody is told

	// watcher is of the directory of state and those in which network namespaces are; nil:
	// the kernel gives none, and look tells when to look.
	watcher *fsnotify.Watcher
	look    *time.Ticker
	mine    os.FileInfo // the socket's file

	mu         sync.Mutex
	since      time.Time // when it began to serve; zero: it does not yet
	notReady   string    // why it is not ready; empty: it is
	pods       map[string]*pod
	unreadable map[string]error // by container
	closed     bool
}

// New returns an agent that is yet to run.
func New(o Options) *Agent {
	a := &Agent{
		stateDir: cmp.Or(o.StateDir, prepare.DefaultStateDir), version: o.Version, log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
		starting: make(chan struct{}, atOnce), pods: map[string]*pod{}, unreadable: map[string]error{}, notReady: "it is starting",
	}
	if a.begin = o.Begin; a.begin == nil {
		a.begin = func(context.Context) error { return nil }
	}
	if o.Settled != nil {
		a.settled = time.AfterFunc(settleTime, o.Settled)
	}
	return a
}

// Run serves until ctx ends, and then returns nil; where somebody removes its socket, it
// returns an error, and whoever runs it is to start the next one. Where another agent serves the node,
// it waits until that has ended. It is called once.
func (a *Agent) Run(ctx context.Context) (err error) {
	if err := os.MkdirAll(a.stateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	lock, err := a.lock(ctx)
	if lock == nil {
		return err
	}
	defer lock.Close()
	if err := a.begin(ctx); err != nil {
		return err
	}
	a.look = time.NewTicker(lookAgain)
	defer a.look.Stop()
	if err := a.newWatcher(); err != nil {
		return err
	}
	if a.watcher != nil {
		defer a.watcher.Close()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	listener, err := a.listen(ctx) // before it looks, so that no attachment is missed
	if err != nil {
		cancel(nil)
		return err
	}
	defer func() {
		if !errors.Is(context.Cause(ctx), errUnreachable) { // else another's may be in its place by now
			_ = os.Remove(a.socket()) // the next agent replaces what is left
		}
	}()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	if err := a.watchDir(a.stateDir); err != nil {
		return errors.Join(fmt.Errorf("watch state directory: %w", err), listener.Close())
	}
	defer a.close(ctx)
	a.mu.Lock()
	a.since, a.notReady = time.Now(), "it is beginning to serve the pods that there are"
	a.mu.Unlock()
	running.Go(func() { a.answer(ctx, listener) })
	running.Go(func() { a.watch(ctx, func() { cancel(errUnreachable) }) })
	if err := a.serveAll(ctx); err != nil {
		return err
	}
	a.setNotReady("")
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), errUnreachable) {
		return fmt.Errorf("%w: %s", errUnreachable, a.socket())
	}
	return nil
}

// lock waits for the right to serve the node; nil without an error if ctx ends before.
func (a *Agent) lock(ctx context.Context) (*os.File, error) {
	path := filepath.Join(a.stateDir, lockName)
	now, cancel := context.WithCancel(ctx)
	cancel()
	lock, err := statedir.LockFile(now, path)
	if errors.Is(err, context.Canceled) {
		a.log.Info("another agent serves this node: waiting until it ends", "lock", path)
		a.setNotReady("") // so that the other one is ended
		lock, err = statedir.LockFile(ctx, path)
	}
	if ctx.Err() != nil {
		return nil, nil //nolint:nilerr // the end of ctx is a good end
	}
	return lock, err
}

// serveAll serves all attachments that there are.
func (a *Agent) serveAll(ctx context.Context) error {
	containers, err := attachment.Containers(a.stateDir)
	if err != nil {
		return err
	}
	start := time.Now()
	var working errgroup.Group
	working.SetLimit(atOnce)
	for _, id := range containers {
		working.Go(func() error {
			a.serveContainer(ctx, id)
			return nil
		})
	}
	_ = working.Wait() // none fails
	a.log.Info("serving", "containers", len(containers), "took", time.Since(start).Round(time.Millisecond))
	return nil
}

// serveContainer serves all attachments of a container. Those that can't be read are told,
// and read again: the process may have no descriptor left just now.
func (a *Agent) serveContainer(ctx context.Context, id string) {
	if ctx.Err() != nil {
		return
	}
	all, err := attachment.OfContainer(a.stateDir, id)
	if a.isUnreadable(id, err); err != nil {
		time.AfterFunc(readAgain, func() { a.serveContainer(ctx, id) })
	}
	for _, at := range all {
		_ = a.serve(ctx, at) // it is logged, and tried again
	}
}

// isUnreadable keeps why a container's attachments can't be read; nil: they can. begins is
// whether they could before.
func (a *Agent) isUnreadable(id string, err error) (begins bool) {
	a.mu.Lock()
	was := a.unreadable[id]
	if a.unreadable[id] = err; err == nil {
		delete(a.unreadable, id)
	}
	a.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		a.log.Error("an attachment can't be read, and is not served", "container", id, "error", err)
	}
	return err != nil && was == nil
}

// NotReady says why the agent is not ready; empty: it has tried to serve all pods that
// there were when it began, or waits for another agent's end. A pod that can't be served
// does not matter.
func (a *Agent) NotReady() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.notReady
}

func (a *Agent) setNotReady(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notReady = why
}

// changed is called when a NIC has come or gone.
func (a *Agent) changed() {
	if a.settled != nil {
		a.settled.Reset(settleTime)
	}
}

// close lets go of all pods.
func (a *Agent) close(ctx context.Context) {
	if a.settled != nil {
		defer a.settled.Stop()
	}
	a.mu.Lock()
	a.closed = true
	var all []*pod
	for _, p := range a.pods {
		all = append(all, p)
	}
	a.mu.Unlock()
	var closing errgroup.Group
	closing.SetLimit(closeAtOnce)
	for _, p := range all {
		closing.Go(func() error {
			p.work.Lock()
			defer p.work.Unlock()
			a.remove(ctx, p)
			return nil
		})
	}
	_ = closing.Wait() // none fails
}
