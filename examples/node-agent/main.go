// Node-agent serves the VMs of many pods from one process on their node, so that
// no pod needs a sidecar with privileges:
//
//	go build ./examples/node-agent
//	node-agent --state-dir /run/node-agent --resolv-conf /run/pods.resolv.conf /run/netns/pod1 /run/netns/pod2 …
//
// It prints where each VM plugs in, and what becomes of its lease. When it ends, or
// is killed, the VMs keep their network, and the next one takes the pods over as
// they are. With --restore it puts those without a VM back as the CNI left them when
// it ends. It needs NET_ADMIN, NET_RAW, SYS_ADMIN and /dev/net/tun.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

const (
	atOnce     = 8               // pods to prepare at a time: the kernel does one by one anyway (rtnl_mutex)
	retryAfter = 5 * time.Second // before a pod is tried again that could not be served
	lookAgain  = 2 * time.Second // whether a pod is gone
)

func main() {
	stateDir := flag.String("state-dir", "/run/node-agent", "`directory` with one of each pod")
	resolvConf := flag.String("resolv-conf", "", "`path` of the pods' resolv.conf")
	restore := flag.Bool("restore", false, "put the pods back when it ends")
	flag.Parse()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	a := agent{log: log, restore: *restore, starting: make(chan struct{}, atOnce)}
	var pods errgroup.Group
	for _, netns := range flag.Args() {
		name := filepath.Base(netns)
		hook := prestart.Hook{
			Netns:      netns,
			StateDir:   filepath.Join(*stateDir, name), // the pod's records: never shared
			ResolvConf: *resolvConf,                    // the node's is not the pod's, nor is its name
			Lease:      prestart.LeaseSettings{Hostname: name},
			Timeout:    30 * time.Second,
			Log:        log.With("pod", name),
		}
		pods.Go(func() error { return a.keep(ctx, hook) })
	}
	if err := pods.Wait(); err != nil {
		log.Error("not all pods ended well", "error", err)
		os.Exit(1)
	}
}

type agent struct {
	log      *slog.Logger
	restore  bool
	starting chan struct{}
}

// keep serves a pod until ctx ends or the pod is gone, again after a failure. What
// is wrong with one pod does not end the others.
func (a agent) keep(ctx context.Context, hook prestart.Hook) error {
	for {
		err := a.serve(ctx, hook)
		switch {
		case ctx.Err() != nil:
			if a.restore {
				_, restoreErr := hook.Restore(context.WithoutCancel(ctx))
				err = errors.Join(err, restoreErr)
			}
			return err
		case isGone(hook.Netns):
			hook.Log.Info("the pod is gone")
			return os.RemoveAll(hook.StateDir)
		}
		hook.Log.Error("can't serve the pod", "error", err, "again", retryAfter)
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
		}
	}
}

// serve serves a pod until ctx ends or the pod is gone, which is no error, or
// something fails. A pod that is prepared already, as after this program was
// killed, is taken as it is.
func (a agent) serve(ctx context.Context, hook prestart.Hook) (err error) {
	session, err := a.start(ctx, hook)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close(context.WithoutCancel(ctx))) }()
	pod := filepath.Base(hook.Netns)
	for _, n := range session.NICs() {
		fmt.Println("ready", pod, n.Interface, n.Tap, n.MAC)
	}
	ended := make(chan error, 1)
	go func() { ended <- session.Wait(ctx) }()
	events := session.Events(ctx)
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case e, ok := <-events:
			if !ok {
				events = nil
			} else if e.Lease != nil {
				fmt.Println(e.Lease.Type, pod, e.Interface, e.Lease.Address)
			}
		case <-look.C: // its sockets would keep the namespace
			if isGone(hook.Netns) {
				return nil
			}
		}
	}
}

// start runs the hook when its turn has come.
func (a agent) start(ctx context.Context, hook prestart.Hook) (*prestart.Session, error) {
	select {
	case a.starting <- struct{}{}:
		defer func() { <-a.starting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return hook.Run(ctx)
}

func isGone(netns string) bool {
	_, err := os.Stat(netns)
	return errors.Is(err, fs.ErrNotExist)
}
