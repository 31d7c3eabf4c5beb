package control

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
)

// Server answers on the socket in a state directory. Close it.
type Server struct {
	dir       string
	namespace statedir.Namespace
	http      *http.Server
	mux       *http.ServeMux
	// takesPosts is whether Post was called.
	takesPosts bool

	mu       sync.Mutex
	closed   bool
	listener net.Listener
	made     os.FileInfo // the socket in the directory
}

// NewServer returns one that answers for the calling thread's network namespace what
// status returns, and to those who wait when wait has returned nil: that blocks until the
// condition, [ForNetwork] or [ForLease], is met, or its context ends. It answers once it
// listens.
func NewServer(dir string, status func() Status, wait func(ctx context.Context, condition string) error) (*Server, error) {
	namespace, err := statedir.Of("")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, namespace: namespace, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, status()) })
	s.mux.HandleFunc("GET /v1/wait", func(w http.ResponseWriter, r *http.Request) {
		condition := r.FormValue("for")
		if err := checkCondition(condition); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if wait(r.Context(), condition) != nil {
			panic(http.ErrAbortHandler) //nolint:forbidigo // the way of net/http to end without an answer: who asks sees a server that ends
		}
		s.reply(w, status())
	})
	s.http = &http.Server{Handler: s.withoutBody(s.mux), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	s.http.SetKeepAlivesEnabled(false)
	s.http.Protocols = new(http.Protocols) // HTTP/2 would take memory in each pod
	s.http.Protocols.SetHTTP1(true)
	return s, nil
}

// withoutBody refuses requests with a body, which would be waited for, except where some
// are to have one.
func (s *Server) withoutBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 || s.takesPosts && r.Method == http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // an error: it has ended
		http.Error(w, "want a request without a body", http.StatusBadRequest)
	})
}

func (s *Server) path() string { return filepath.Join(s.dir, SocketName) }

// CheckFree returns an error if somebody listens on the socket in dir: for who has
// the right to serve its own namespace that is another one's server.
func CheckFree(ctx context.Context, dir string) error {
	path := filepath.Join(dir, SocketName)
	conn, peer, err := statedir.Dial(ctx, path)
	switch {
	case errors.Is(err, unix.EAGAIN): // so many ask that the kernel has no more room for one
		return fmt.Errorf("listen on %s: who listens there is stopped, frozen or busy (%w): end it, or choose another state directory", path, err)
	case err != nil:
		return nil //nolint:nilerr // then nobody does
	}
	conn.Close()
	return fmt.Errorf("listen on %s: %s listens there, and serves another network namespace: choose another state directory",
		path, statedir.Process(int(peer.Pid)))
}

// Listen makes the socket, in the place of one that nobody listens on any more, and
// answers on it. It can be called again when the socket was deleted.
func (s *Server) Listen(ctx context.Context) error {
	if err := CheckFree(ctx, s.dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	listener, made, err := s.makeSocket(ctx)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.path(), err)
	}
	if s.listener != nil {
		_ = s.listener.Close() // nobody can reach it any more
	}
	s.listener, s.made = listener, made
	go s.http.Serve(listener) //nolint:errcheck // it ends with the server, or with the listener
	return nil
}

// makeSocket makes the socket, which gets its name when it listens already, so that
// whoever sees it can connect. Only root and the process's user can do that, whatever
// the umask.
func (s *Server) makeSocket(ctx context.Context) (net.Listener, os.FileInfo, error) {
	path := s.path()
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return nil, nil, errors.New("it is a directory: remove it")
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	early := path + ".new"
	if err := os.Remove(early); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// The file gets the mode of the socket that is bound to it (unix_bind_bsd,
		// net/unix/af_unix.c).
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	// By the descriptor, since a socket's path has 107 bytes at most.
	listener, err := config.Listen(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(early)))
	if err != nil {
		return nil, nil, err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	made, err := os.Lstat(early)
	if err == nil {
		err = os.Rename(early, path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, listener.Close(), os.Remove(early))
	}
	return listener, made, nil
}

// IsThere tells whether the socket is where askers look for it.
func (s *Server) IsThere() bool {
	there, err := os.Lstat(s.path())
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && s.made != nil && os.SameFile(there, s.made)
}

// Close removes the socket. Those who wait get no answer.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true // first: who finds that the socket is gone makes no other one
	s.mu.Unlock()
	if s.IsThere() {
		_ = os.Remove(s.path()) // what is left of it is replaced by the next one
	}
	_ = s.http.Close() // ends the requests' contexts
}

func (s *Server) reply(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(namespaceHeader, headerOf(s.namespace))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // who does not read is not waited for
	_ = json.NewEncoder(w).Encode(answer)                                          // an error means that nobody reads any more
}
