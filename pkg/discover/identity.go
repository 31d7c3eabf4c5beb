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

// readIdentity reads the hostname and the resolv.conf of the pod whose network
// namespace the calling thread is in. This process's are the pod's if it is in that
// namespace itself; else a process that is has them. They are never the node's.
func readIdentity(ctx context.Context, o Options) (id identity, err error) {
	if !o.NoIdentity {
		if id, err = identityOf(ctx, o); err != nil {
			return id, err
		}
	}
	if o.ResolvConf != "" {
		id.dns, err = ReadResolvConf(o.ResolvConf)
	}
	return id, err
}

// identityOf is readIdentity without a resolv.conf that is named.
func identityOf(ctx context.Context, o Options) (id identity, err error) {
	netns, err := namespaceAt("/proc/thread-self/ns/net")
	if err != nil {
		return id, err
	}
	own, err := isOwn(netns)
	if err != nil {
		return id, err
	}
	if own {
		return ownIdentity(o)
	}
	return podIdentity(ctx, o, netns), nil
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

// podIdentity reads what processes of the pod have, which is waited for no longer
// than patience.
func podIdentity(ctx context.Context, o Options, netns namespace) identity {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the pod's files can't be read within %s", patience))
	defer cancel()
	read := make(chan identity, 1)
	go func() {
		var id identity
		var nameErr, filesErr error
		missing := inProcesses(o.Process, netns, map[string]func(process){
			"uts": func(p process) { id.hostname, nameErr = p.hostname() },
			"mnt": func(p process) {
				var b []byte
				b, filesErr = p.read(maxResolvConf, "resolv.conf")
				id.dns = parseResolvConf(b)
			},
		})
		if missing["uts"] {
			nameErr = errNoProcess
		}
		if nameErr != nil {
			o.Log.Debug("can't read the pod's hostname", "error", nameErr)
		}
		if missing["mnt"] {
			filesErr = errNoProcess
		}
		if filesErr != nil {
			id.dns.Unknown = filesErr.Error()
		}
		read <- id
	}()
	select {
	case id := <-read:
		return id
	case <-ctx.Done():
		return identity{dns: Resolver{Unknown: context.Cause(ctx).Error()}}
	}
}
