package prestart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// controlSocket is the socket's name in the state directory.
const controlSocket = "control.sock"

// SessionStatus is what only the serving process knows.
type SessionStatus struct {
	PID     int       `json:"pid"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since"`
	Ready   bool      `json:"ready"` // a guest could boot, and the network is as planned
	// Differences are what is not as planned; Missing are the links among it that
	// are not there at all.
	Differences []prepare.Difference `json:"differences,omitempty"`
	Missing     []string             `json:"missing,omitempty"`
	// Unwatched says why nobody would notice if somebody changed the port guard or
	// the answers for neighbours; empty: it would be noticed.
	Unwatched string `json:"unwatched,omitempty"`
	// PrepareSeconds is how long it took to discover and prepare the network
	// (or to find it prepared), StartSeconds until a guest could boot.
	PrepareSeconds float64 `json:"prepareSeconds"`
	StartSeconds   float64 `json:"startSeconds,omitempty"`
	Domain         string  `json:"domain,omitempty"`
	// RecordError is why the record, without which the pod can't be put back, is
	// not on disk any more; empty: it is.
	RecordError string `json:"recordError,omitempty"`
	// By pod interface: the leases of DHCPv4 and DHCPv6, and who tells of the
	// IPv6 router.
	Leases  map[string]dhcp.Status  `json:"leases"`
	Leases6 map[string]dhcp6.Status `json:"leases6,omitempty"`
	Routers map[string]ra.Status    `json:"routers,omitempty"`
	// Unheard are the pod interfaces on whose taps a VM was when the server started,
	// though nothing is kept of its lease: whether the VM has one is not known until
	// it speaks, which with a lease that has no end it need not.
	Unheard []string `json:"unheard,omitempty"`
	// Omitted is, by pod interface, what the pod has and its VM does not get.
	Omitted map[string][]discover.Omission `json:"omitted,omitempty"`
}

// control answers on the state directory's socket, HTTP with JSON:
//
//	GET /v1/status                    the SessionStatus
//	GET /v1/wait?for=network|lease    the same, once it is so
//
// Each answer has the network namespace that is served in a header.
type control struct {
	dir       string
	namespace statedir.Namespace

	mu       sync.Mutex
	listener net.Listener
	made     os.FileInfo // the socket in the directory
	server   *http.Server
}

// namespaceHeader is the header of an answer that says which network namespace it
// is about.
const namespaceHeader = "Network-Namespace"

// listenControl opens the socket. One that a killed process left behind is
// replaced; one that answers is an error.
func listenControl(ctx context.Context, dir string, namespace statedir.Namespace) (*control, error) {
	if err := nobodyListens(ctx, dir); err != nil {
		return nil, err
	}
	c := &control{dir: dir, namespace: namespace}
	if err := c.listen(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// nobodyListens returns an error if somebody does on the control socket in dir.
// Whoever serves this namespace has its lock, so that is another one's server.
func nobodyListens(ctx context.Context, dir string) error {
	conn, peer, err := statedir.Dial(ctx, filepath.Join(dir, controlSocket))
	if err != nil {
		return nil //nolint:nilerr // then nobody does
	}
	conn.Close()
	return fmt.Errorf("listen on %s: %s listens there, and serves another network namespace: choose another state directory",
		filepath.Join(dir, controlSocket), statedir.Process(int(peer.Pid)))
}

// listen makes the socket, in the place of what is there. It gets its name when it
// listens already, so that whoever sees it can connect, and only root and the
// process's user can do that, whatever the umask.
func (c *control) listen(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := filepath.Join(c.dir, controlSocket)
	dir, err := os.Open(c.dir)
	if err != nil {
		return fmt.Errorf("listen on control socket: %w", err)
	}
	defer dir.Close()
	early := path + ".new"
	if err := os.Remove(early); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen on control socket: %w", err)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// The file gets the mode of the socket that is bound to it (unix_bind_bsd,
		// net/unix/af_unix.c).
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	// By the descriptor, since a socket's path has 107 bytes at most.
	listener, err := config.Listen(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(early)))
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	made, err := os.Lstat(early)
	if err == nil {
		err = os.Rename(early, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("listen on control socket: %w", err), listener.Close(), os.Remove(early))
	}
	if c.listener != nil {
		_ = c.listener.Close() // nobody can reach it any more
	}
	c.listener, c.made = listener, made
	if c.server != nil {
		go c.server.Serve(listener) //nolint:errcheck // it ends with the server, or with the listener
	}
	return nil
}

// isThere tells whether the socket is where askers look for it.
func (c *control) isThere() bool {
	there, err := os.Lstat(filepath.Join(c.dir, controlSocket))
	c.mu.Lock()
	defer c.mu.Unlock()
	return err == nil && os.SameFile(there, c.made)
}

// serve answers until ctx ends, and removes the socket.
func (c *control) serve(ctx context.Context, s *Session) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { c.reply(w, s.Status()) })
	mux.HandleFunc("GET /v1/wait", func(w http.ResponseWriter, r *http.Request) {
		condition := r.FormValue("for")
		if condition != ForNetwork && condition != ForLease {
			http.Error(w, fmt.Sprintf("wait for %q: want %s or %s", condition, ForNetwork, ForLease), http.StatusBadRequest)
			return
		}
		if s.waitFor(r.Context(), condition) != nil {
			panic(http.ErrAbortHandler) //nolint:forbidigo // the way of net/http to end without an answer: who asks sees a server that ends
		}
		c.reply(w, s.Status())
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	c.mu.Lock()
	c.server = server
	go server.Serve(c.listener) //nolint:errcheck // it ends with the server, or with the listener
	c.mu.Unlock()
	<-ctx.Done()
	if c.isThere() {
		_ = os.Remove(filepath.Join(c.dir, controlSocket)) // what is left of it is replaced by the next one
	}
	_ = server.Close()
	return nil
}

func (c *control) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close control socket: %w", err)
	}
	return nil
}

func (c *control) reply(w http.ResponseWriter, status SessionStatus) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(namespaceHeader, headerOf(c.namespace))
	_ = json.NewEncoder(w).Encode(status) // an error means that nobody reads any more
}

// headerOf is the namespace as the header has it, as far as who asks from outside
// can know it.
func headerOf(ns statedir.Namespace) string { return fmt.Sprintf("%s %d", ns.BootID, ns.Inode) }

// waitFor blocks until the condition holds or ctx ends.
func (s *Session) waitFor(ctx context.Context, condition string) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.watch.waitUntilPlanned(ctx); err != nil || condition == ForNetwork {
		return err
	}
	for _, on := range s.servers {
		if err := on.waitForLease(ctx); err != nil {
			return err
		}
	}
	return nil
}
