package prestart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
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
	// By pod interface: the leases of DHCPv4 and DHCPv6, and who tells of the
	// IPv6 router.
	Leases  map[string]dhcp.Status  `json:"leases"`
	Leases6 map[string]dhcp6.Status `json:"leases6,omitempty"`
	Routers map[string]ra.Status    `json:"routers,omitempty"`
}

// control answers on the state directory's socket, HTTP with JSON:
//
//	GET /v1/status                    the SessionStatus
//	GET /v1/wait?for=network|lease    the same, once it is so
type control struct {
	path     string
	listener *net.UnixListener
}

// listenControl opens the socket. One that a killed process left behind is
// replaced; one that answers is an error. The socket gets its name when it
// listens already, so that whoever sees it can connect.
func listenControl(ctx context.Context, dir string) (*control, error) {
	path := filepath.Join(dir, controlSocket)
	if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %s: another virt-launcher-net serves this pod already: end it first, or see its status", path)
	}
	early := fmt.Sprintf("%s.%d", path, os.Getpid())
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: early, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	if err := os.Rename(early, path); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on control socket: %w", err), listener.Close(), os.Remove(early))
	}
	return &control{path: path, listener: listener}, nil
}

// serve answers until ctx ends, and removes the socket.
func (c *control) serve(ctx context.Context, s *Session) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Status()) })
	mux.HandleFunc("GET /v1/wait", func(w http.ResponseWriter, r *http.Request) {
		condition := r.FormValue("for")
		if condition != ForNetwork && condition != ForLease {
			http.Error(w, fmt.Sprintf("wait for %q: want %s or %s", condition, ForNetwork, ForLease), http.StatusBadRequest)
			return
		}
		if s.waitFor(r.Context(), condition) == nil {
			reply(w, s.Status())
		}
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		_ = os.Remove(c.path) // what is left of it is replaced by the next one
		_ = server.Close()
	})
	defer stop()
	if err := server.Serve(c.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

func reply(w http.ResponseWriter, status SessionStatus) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(status) // an error means that nobody reads any more
}

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

// ask gets what the serving process answers. The error wraps [ErrNobodyServes]
// if there is none.
func ask(ctx context.Context, dir, resource string) (SessionStatus, error) {
	path := filepath.Join(dir, controlSocket)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://virt-launcher-net"+resource, http.NoBody)
	if err != nil {
		return SessionStatus{}, fmt.Errorf("ask %s: %w", path, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return SessionStatus{}, fmt.Errorf("%w on %s (%w): start run or serve, or name their --state-dir", ErrNobodyServes, path, errors.Unwrap(dial.Err))
		}
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: it ended", ErrNobodyServes)
		}
		return SessionStatus{}, fmt.Errorf("ask %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return SessionStatus{}, fmt.Errorf("ask %s: %s: %s", path, resp.Status, b)
	}
	var status SessionStatus
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: it ended", ErrNobodyServes)
		}
		return SessionStatus{}, fmt.Errorf("ask %s: %w", path, err)
	}
	return status, nil
}
