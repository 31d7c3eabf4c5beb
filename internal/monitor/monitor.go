// Package monitor lets probes and Prometheus look at a session over HTTP:
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
	session atomic.Pointer[metric.Session]
	version string
	since   time.Time
	server  *http.Server
	served  chan error
}

// Listen answers on address: host:port, or unix: and the path of a socket. A
// socket that a killed process left behind is replaced. A nil log is silent.
func Listen(ctx context.Context, log *slog.Logger, address, version string) (*Monitor, error) {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	listener, err := listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("listen for probes and metrics: %w", err)
	}
	m := &Monitor{version: version, since: time.Now(), served: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", m.ready)
	mux.HandleFunc("GET /metrics", m.metrics)
	m.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
	go func() { m.served <- m.server.Serve(listener) }()
	log.Info("listening for probes and metrics", "address", listener.Addr().String())
	return m, nil
}

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
		return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return nil, fmt.Errorf("another process answers on %s", path)
	}
	if info, e := os.Lstat(path); e == nil && info.Mode().Type() == os.ModeSocket && errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return (&net.ListenConfig{}).Listen(ctx, "unix", path)
}

// Watch makes a session what there is to look at.
func (m *Monitor) Watch(s metric.Session) { m.session.Store(&s) }

func (m *Monitor) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", metric.ContentType)
	metric.Write(w, metric.OfSession, func(each metric.Each) {
		var s metric.Session
		if watched := m.session.Load(); watched != nil {
			s = *watched
		}
		metric.Read(s, each)
	})
	metric.Write(w, metric.OfProcess, func(each metric.Each) { metric.ReadProcess(m.version, m.since, each) })
}

func (m *Monitor) ready(w http.ResponseWriter, _ *http.Request) {
	s := m.session.Load()
	if s == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	if why := (*s).Status().NotReady(); why != "" {
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n") // whoever asked has gone
}

// Close ends it, cutting off whoever is still reading.
func (m *Monitor) Close() error {
	err := m.server.Close()
	if served := <-m.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("serve probes and metrics: %w", err)
	}
	return nil
}
