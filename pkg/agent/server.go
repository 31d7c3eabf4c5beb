package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/utils"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// listen makes the agent's socket, in the place of one that is left: the lock says that
// no other agent has it. Only root can connect, whatever the umask.
func (a *Agent) listen(ctx context.Context) (net.Listener, error) {
	path := a.socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace agent's socket: %w", err)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err) // which the file gets
	}}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for the CNI plugin: %w", err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) // Run removes it
	if a.mine, err = os.Lstat(path); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errUnreachable, err), listener.Close())
	}
	return listener, nil
}

func (a *Agent) socket() string { return filepath.Join(a.stateDir, attachment.SocketName) }

// handler answers who asks on the socket.
func (a *Agent) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	const resource = " /v1/attachments/{container}/{interface}"
	handle := func(method string, do func(container, name string) error) {
		mux.HandleFunc(method+resource, func(w http.ResponseWriter, r *http.Request) {
			container, name := r.PathValue("container"), r.PathValue("interface")
			if err := guest.CheckName(name); err != nil || utils.ValidateContainerID(container) != nil {
				http.Error(w, fmt.Sprintf("%q, %q: want a container and an interface", container, name), http.StatusBadRequest)
				return
			}
			switch err := do(container, name); {
			case errors.Is(err, fs.ErrNotExist):
				http.Error(w, err.Error(), http.StatusNotFound)
			case err != nil:
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	// What is begun is ended, also where who asked does not wait for it.
	handle(http.MethodPut, func(container, name string) error {
		err := a.attach(ctx, container, name)
		if errors.Is(err, errUnseen) && errors.Is(err, fs.ErrNotExist) { // which is not told, as of a pod that is gone
			a.log.Error("a NIC is not served", "container", container, "interface", name, "error", err)
		}
		return err
	})
	handle(http.MethodDelete, func(container, name string) error {
		// An agent that was frozen does at once what was asked of it meanwhile, in any order.
		// If the NIC is attached anew by now, its attachment is there, and is served.
		err := a.detach(ctx, container, name)
		time.AfterFunc(readAgain, func() { a.again(ctx, container, name) })
		return err
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = a.Status().answer(w) // an error means that nobody reads any more
	})
	return mux
}

// answer answers on the socket until ctx ends.
func (a *Agent) answer(ctx context.Context, listener net.Listener) {
	server := &http.Server{Handler: a.handler(ctx), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn)}
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	_ = server.Serve(listener) // it ends with ctx
}
