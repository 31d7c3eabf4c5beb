package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// ErrNode means that the node's agent serves the pod, which takes no requests there.
var ErrNode = errors.New("the node's agent serves this pod")

// untrusted is the way out where who listens in the pod does not answer as a server does.
const untrusted = "if that is not the node's agent, end it, and the agent listens there within a minute; else the agent's log on the node says more"

// dialPod connects to who listens in the pod. Nil without an error: nobody does, or the
// pod is not that of the calling thread.
func (at located) dialPod(ctx context.Context) (*net.UnixConn, error) {
	if own, err := statedir.Of(""); err != nil || !own.Same(at.namespace) {
		return nil, nil //nolint:nilerr // then it is not
	}
	conn, err := statedir.Connect(ctx, PodSocketName)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, unix.ECONNREFUSED) && !isTaken():
		return nil, nil
	case errors.Is(err, unix.ECONNREFUSED):
		err = fmt.Errorf("%w: a process of the pod has taken this name and does not listen, so the node's agent can't: end that process (%w)", ErrNobodyServes, errNoSocket)
	case errors.Is(err, unix.EAGAIN): // so many ask that the kernel has no more room for one
		err = fmt.Errorf("%w: who has this name in the pod takes no connection (%w): %s", ErrNoAnswer, err, untrusted)
	}
	return nil, fmt.Errorf("ask %s: %w", PodSocketName, err)
}

// isTaken tells whether a process has the name of the pod's socket.
func isTaken() bool {
	sockets, err := os.ReadFile("/proc/thread-self/net/unix")
	return err == nil && strings.Contains(string(sockets), " "+PodSocketName+"\n")
}

// askPod reads what who listens in the pod answers until ctx ends. Anybody in the pod may
// have taken the name, so each error says who that is, as far as is known.
func (at located) askPod(ctx context.Context, conn *net.UnixConn, method, resource string, answer any) error {
	defer conn.Close()
	if method != http.MethodGet {
		return ErrNode
	}
	who := "a process"
	if peer, err := statedir.Peer(conn); err == nil {
		who = fmt.Sprintf("%s, of user %d,", statedir.Process(int(peer.Pid)), peer.Uid)
	}
	err := at.talk(ctx, conn, method, resource, http.NoBody, answer)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = fmt.Errorf("%w: %s listens there and says nothing (%w): %s", ErrNoAnswer, who, context.Cause(ctx), untrusted)
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		err = fmt.Errorf("%w: %s listened there and hung up: %s (%w)", ErrNobodyServes, who, untrusted, errNoSocket)
	default:
		err = fmt.Errorf("%s listens there: %w: %s", who, err, untrusted)
	}
	return fmt.Errorf("ask %s: %w", PodSocketName, err)
}
