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
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/metrics"
)

// unixPrefix is before the path of a socket.
const unixPrefix = "unix:"

// Monitor answers on one listener. Close it.
type Monitor struct {
	session   atomic.Pointer[metrics.Session]
	collector *metrics.Collector
	server    *http.Server
	served    chan error
}

// Listen answers on address: host:port, or unix: and the path of a socket. A
// socket that a killed process left behind is replaced. A nil log is silent.
func Listen(ctx context.Context, log *slog.Logger, address, version string) (*Monitor, error) {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	listener, err := listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("listen for probes and metrics: %w", err)
	}
	m := &Monitor{collector: metrics.NewCollector(nil), served: make(chan error, 1)}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.collector, buildInfo(version))
	// The library's own registry has what there is to know of any Go process.
	all := prometheus.Gatherers{registry, prometheus.DefaultGatherer}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", m.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
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

// buildInfo tells which build this is.
func buildInfo(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "virt_launcher_net", Name: "build_info", Help: "Always 1; the labels tell which build this is.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	}, func() float64 { return 1 })
}

// Watch makes a session what there is to look at.
func (m *Monitor) Watch(s metrics.Session) {
	m.session.Store(&s)
	m.collector.Watch(s)
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
