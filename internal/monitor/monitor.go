// Package monitor lets probes and Prometheus look at a session, or at many pods, over
// HTTP:
//
//	GET /healthz    200 while the process answers
//	GET /readyz     200 while the network is there and served; 503 and why not
//	GET /metrics    Prometheus metrics
package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/metric"
)

// unixPrefix is before the path of a socket.
const unixPrefix = "unix:"

// Monitor answers on one listener. Close it.
type Monitor struct {
	watched atomic.Pointer[watched] // nil: a session that is yet to start
	version string
	since   time.Time
	server  *http.Server
	served  chan error
	socket  socket
	address net.Addr
}

// Listen answers on address: host:port, or unix: and the path of a socket. A
// socket that a killed process left behind is replaced. The error wraps [syscall.EADDRINUSE]
// if another process listens there. A nil log is silent.
func Listen(ctx context.Context, log *slog.Logger, address, version string) (*Monitor, error) {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	listener, err := listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("listen for probes and metrics: %w", err)
	}
	m := &Monitor{version: version, since: time.Now(), served: make(chan error, 1), socket: socketOf(listener), address: listener.Addr()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", m.ready)
	mux.HandleFunc("GET /metrics", m.metrics)
	m.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() { m.served <- m.server.Serve(listener) }()
	log.Info("listening for probes and metrics", "address", listener.Addr().String())
	return m, nil
}

// Addr is where it listens.
func (m *Monitor) Addr() net.Addr { return m.address }

// CheckAddress tells what [Listen] would refuse of an address wherever it is.
func CheckAddress(address string) error {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if most := len(syscall.RawSockaddrUnix{}.Path) - 1; path == "" || len(path) > most {
			return fmt.Errorf("the path of a socket has 1 to %d bytes", most)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("want host:port or unix:PATH")
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, unixPrefix)
	if !ok {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			err = fmt.Errorf("%w: no link here that is up has this address", err)
		}
		return l, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return nil, fmt.Errorf("another process answers on %s: %w", path, syscall.EADDRINUSE)
	}
	if info, e := os.Lstat(path); e == nil && info.Mode().Type() == os.ModeSocket && errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return (&net.ListenConfig{}).Listen(ctx, "unix", path)
}

// socket is what there is of a listener's in the file system.
type socket struct {
	path string // empty: nothing
	info fs.FileInfo
}

// socketOf keeps the listener from removing whatever has its path at the end.
func socketOf(l net.Listener) (s socket) {
	if l, is := l.(*net.UnixListener); is {
		l.SetUnlinkOnClose(false)
		s.path = l.Addr().String()
		s.info, _ = os.Lstat(s.path)
	}
	return s
}

// remove removes it, if nothing else has been put in its place.
func (s socket) remove() error {
	switch now, err := os.Lstat(s.path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !os.SameFile(s.info, now):
		return nil
	}
	return os.Remove(s.path)
}

// watched is what there is to look at.
type watched struct {
	notReady func() string
	descs    []*metric.Desc
	read     func(metric.Each)
}

// Watch makes a session what there is to look at.
func (m *Monitor) Watch(s metric.Session) {
	m.watched.Store(&watched{
		func() string { return s.Status().NotReady() }, metric.OfSession, func(each metric.Each) { metric.Read(s, each) },
	})
}

// WatchPods makes many pods what there is to look at. notReady is why whoever serves them
// is not ready; empty: it is, whatever becomes of a single pod.
func (m *Monitor) WatchPods(notReady func() string, pods func() []metric.Pod) {
	m.watched.Store(&watched{notReady, metric.OfPods, func(each metric.Each) { metric.ReadPods(pods(), each) }})
}

func (m *Monitor) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", metric.ContentType)
	if seen := m.watched.Load(); seen != nil {
		metric.Write(w, seen.descs, seen.read)
	} else {
		metric.Write(w, metric.OfSession, func(each metric.Each) { metric.Read(nil, each) })
	}
	metric.Write(w, metric.OfProcess, func(each metric.Each) { metric.ReadProcess(m.version, m.since, each) })
}

func (m *Monitor) ready(w http.ResponseWriter, _ *http.Request) {
	seen := m.watched.Load()
	if seen == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	if why := seen.notReady(); why != "" {
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n") // whoever asked has gone
}

// Close ends it, cutting off whoever is still reading.
func (m *Monitor) Close() error {
	err := errors.Join(m.server.Close(), m.socket.remove())
	if served := <-m.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("serve probes and metrics: %w", err)
	}
	return nil
}
