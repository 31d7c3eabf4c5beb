package discover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// patience is how long the files of a pod's process may take to be read: the pod
// may have put a file system of its own there.
const patience = 2 * time.Second

// errNoProcess is why nothing is known of a pod but its network.
var errNoProcess = errors.New("no process of the pod is visible: no process in its network namespace has a hostname and files of its own")

// identity is what a pod is called and whom it asks for names.
type identity struct {
	hostname string // empty: not known
	dns      Resolver
}

// startIdentity begins to read the hostname and the resolv.conf of the pod whose network
// namespace the calling thread is in, and returns what waits for them. This process's are
// the pod's if it is in that namespace itself; else a process that is has them. They are
// never the node's.
func startIdentity(o Options) (finish func(context.Context) (identity, error), err error) {
	ofProcess, err := startOfProcess(o)
	return func(ctx context.Context) (identity, error) {
		id, err := ofProcess(ctx)
		if err == nil && o.ResolvConf != "" {
			id.dns, err = ReadResolvConf(o.ResolvConf)
		}
		return id, err
	}, err
}

// startOfProcess is startIdentity without a resolv.conf that is named. The processes of a
// node may take longer to go through than the pod's network to read, so that begins first.
func startOfProcess(o Options) (finish func(context.Context) (identity, error), err error) {
	if o.NoIdentity {
		return func(context.Context) (identity, error) { return identity{}, nil }, nil
	}
	netns, err := namespaceAt("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	own, err := isOwn(netns)
	if err != nil {
		return nil, err
	}
	if own {
		return func(context.Context) (identity, error) { return ownIdentity(o) }, nil
	}
	read := make(chan podIdentity, 1)
	go func() { read <- readPodIdentity(o, netns) }()
	return func(ctx context.Context) (identity, error) { return waitForIdentity(ctx, read, o), nil }, nil
}

func ownIdentity(o Options) (id identity, err error) {
	if id.hostname, err = os.Hostname(); err != nil {
		return id, fmt.Errorf("read hostname: %w", err)
	}
	if o.ResolvConf == "" {
		if id.dns, err = ReadResolvConf(""); err != nil { // the VM starts without DNS rather than not at all
			id.dns.Unknown = err.Error()
		}
	}
	return id, nil
}

// podIdentity is what processes of the pod have, and why no hostname is known.
type podIdentity struct {
	identity
	nameErr error
}

// waitForIdentity waits no longer than patience.
func waitForIdentity(ctx context.Context, read <-chan podIdentity, o Options) identity {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the pod's files can't be read within %s", patience))
	defer cancel()
	select {
	case id := <-read:
		if id.nameErr != nil {
			o.Log.Debug("can't read the pod's hostname", "error", id.nameErr)
		}
		return id.identity
	case <-ctx.Done():
		return identity{dns: Resolver{Unknown: context.Cause(ctx).Error()}}
	}
}

func readPodIdentity(o Options, netns namespace) (id podIdentity) {
	var filesErr error
	missing := inProcesses(o.Process, netns, map[string]func(process){
		"uts": func(p process) { id.hostname, id.nameErr = p.hostname() },
		"mnt": func(p process) {
			var b []byte
			b, filesErr = p.read(maxResolvConf, "resolv.conf")
			id.dns = parseResolvConf(b)
		},
	})
	if missing["uts"] {
		id.nameErr = errNoProcess
	}
	if missing["mnt"] {
		filesErr = errNoProcess
	}
	if filesErr != nil {
		id.dns.Unknown = filesErr.Error()
	}
	return id
}
