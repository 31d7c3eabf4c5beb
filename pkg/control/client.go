package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

const (
	// answerTime is how long a server has to say what it knows already.
	answerTime = 2 * time.Second
	// maxAnswer bounds an answer: a VM has few NICs, and texts of some hundred bytes.
	maxAnswer = 1 << 20
)

// Client asks the process that serves a pod. The zero value asks that of the calling
// thread's network namespace. Where there is no control socket in the state directory, it
// asks on [PodSocketName], which a server of many pods listens on, if the pod is the
// calling thread's; who answers there is not verified.
type Client struct {
	// Netns is the path of the pod's network namespace; empty: the calling thread's.
	Netns string
	// StateDir is where the server's state is; empty: [prepare.DefaultStateDir], or a
	// directory of the namespace's own below it if Netns is named.
	StateDir string
	// Log is told by Wait what it waits for, once that takes long; nil: nobody is.
	Log *slog.Logger
}

// Status gets what the server knows now. The error wraps [ErrNobodyServes] if there
// is none, and [ErrNoAnswer] if it says nothing for two seconds.
func (c Client) Status(ctx context.Context) (Status, error) {
	at, err := c.locate()
	if err != nil {
		return Status{}, err
	}
	return at.status(ctx, answerTime)
}

// located is where the server of a network namespace is.
type located struct {
	dir       string
	namespace statedir.Namespace
}

func (c Client) locate() (at located, err error) {
	at.dir, at.namespace, err = statedir.Locate(c.Netns, c.StateDir, prepare.DefaultStateDir)
	return at, err
}

func (at located) path() string { return filepath.Join(at.dir, SocketName) }

func (at located) status(ctx context.Context, within time.Duration) (Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	var status Status
	err := at.ask(ctx, http.MethodGet, "/v1/status", http.NoBody, &status)
	if err == nil && status.Interfaces == nil {
		err = fmt.Errorf("ask %s: %s is another version of this program, whose answer this one can't read: ask by that one, or end it and start this one",
			at.path(), statedir.Process(status.PID))
	}
	return status, err
}

// errNoSocket is that there is no socket that anybody listens on.
var errNoSocket = errors.New("start a server (for a VM pod without a sidecar: look at the node's agent and the pod's annotations), or name its state directory")

// ask reads what the serving process answers until ctx ends.
func (at located) ask(ctx context.Context, method, resource string, body io.Reader, answer any) error {
	path := at.path()
	conn, peer, err := statedir.Dial(ctx, path)
	if isAbsent(err) {
		if inPod, podErr := at.dialPod(ctx); podErr != nil {
			return podErr
		} else if inPod != nil {
			return at.askPod(ctx, inPod, method, resource, answer)
		}
	}
	switch {
	case isAbsent(err):
		if pid := statedir.ServerOf(at.namespace); pid > 0 {
			return fmt.Errorf("ask %s: %w: %s serves this pod, and does not listen there (%w): name its state directory, which is below /proc/%d/root if it is in a container; or it is starting, or is the node's agent (see node status); else its log says why",
				path, ErrNoAnswer, statedir.Process(pid), errors.Unwrap(err), pid)
		}
		return fmt.Errorf("%w on %s (%w): %w", ErrNobodyServes, path, errors.Unwrap(err), errNoSocket)
	case errors.Is(err, unix.EAGAIN): // so many ask that the kernel has no more room for one
		return fmt.Errorf("ask %s: %w: it is stopped, frozen or busy (%w)", path, ErrNoAnswer, err)
	case err != nil:
		return fmt.Errorf("ask %s: %w", path, err)
	}
	defer conn.Close()
	server := statedir.Process(int(peer.Pid))
	err = at.talk(ctx, conn, method, resource, body, answer)
	refused, isRefused := errors.AsType[*RefusedError](err)
	switch {
	case err == nil:
		return nil
	case isRefused:
		return refused
	case ctx.Err() != nil:
		return fmt.Errorf("ask %s: %w: %s is stopped, frozen or busy (%w)", path, ErrNoAnswer, server, context.Cause(ctx))
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return fmt.Errorf("ask %s: %w: %s has ended (%w)", path, ErrNobodyServes, server, errNoSocket)
	}
	return fmt.Errorf("ask %s: %s: %w", path, server, err)
}

// isAbsent tells whether err is that nobody listens at the path of a socket.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ECONNREFUSED)
}

// talk asks over a connection.
func (at located) talk(ctx context.Context, conn net.Conn, method, resource string, request io.Reader, answer any) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://virt-launcher-net"+resource, request)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch of := resp.Header.Get(namespaceHeader); {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusConflict && of == headerOf(at.namespace) && refusal(body) != nil:
		return refusal(body)
	case resp.StatusCode == http.StatusNotFound:
		return errors.New("it does not know of this request: it is another version of this program")
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", statedir.Printable(resp.Status), statedir.Printable(string(body[:min(len(body), 1<<10)])))
	case len(body) > maxAnswer:
		return fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	case of == "":
		return errors.New("it does not say which network namespace it serves")
	case of != headerOf(at.namespace):
		return fmt.Errorf("it serves another network namespace (%s, not %s): name the state directory of this one", statedir.Printable(of), headerOf(at.namespace))
	}
	if err := statedir.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("its answer can't be read: %w", err)
	}
	return nil
}
