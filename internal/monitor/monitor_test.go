package monitor_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/virt-launcher-net/virt-launcher-net/internal/monitor"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// session is one that says what the test wants.
type session struct {
	status func() control.Status
	guard  func() (map[string][]prepare.GuardCounter, error)
}

func (s session) Status() control.Status { return s.status() }

func (s session) GuardCounters() (map[string][]prepare.GuardCounter, error) { return s.guard() }

// start listens on a socket and returns how to ask there.
func start(t *testing.T, path string) (*monitor.Monitor, func(resource string) (int, string)) {
	t.Helper()
	m, err := monitor.Listen(t.Context(), nil, "unix:"+path, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	return m, func(resource string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://monitor"+resource, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
}

func TestMonitor(t *testing.T) {
	m, get := start(t, filepath.Join(t.TempDir(), "monitor.sock"))
	expect := func(resource string, code int, texts ...string) {
		t.Helper()
		got, body := get(resource)
		if got != code {
			t.Errorf("%s: %d, want %d", resource, got, code)
		}
		for _, text := range texts {
			if !strings.Contains(body, text) {
				t.Errorf("%s has no %q in:\n%s", resource, text, body)
			}
		}
	}
	expect("/healthz", http.StatusOK)
	expect("/readyz", http.StatusServiceUnavailable, "starting")
	expect("/metrics", http.StatusOK, `virt_launcher_net_build_info{go_version="go`, `version="v1.2.3"`, "virt_launcher_net_ready 0")

	status := control.Status{
		PrepareSeconds: 0.008,
		Interfaces: []control.Served{{Name: "eth0", Lease: &lease.Status{
			Address: netip.MustParsePrefix("192.0.2.7/24"), State: lease.Bound, Since: time.UnixMilli(1_700_000_000_500), Renewed: time.Unix(1_700_000_100, 0),
			Expires: time.Unix(1_700_003_600, 0), Declined: time.Unix(1_600_000_000, 0),
			Received: map[string]uint64{"DISCOVER": 2}, Sent: map[string]uint64{"OFFER": 2}, Dropped: map[lease.DropReason]uint64{lease.DropOverBudget: 7},
		}}},
	}
	guardErr := errors.New("no NET_ADMIN")
	m.Watch(session{
		func() control.Status { return status },
		func() (map[string][]prepare.GuardCounter, error) {
			if guardErr != nil {
				return nil, guardErr
			}
			return map[string][]prepare.GuardCounter{"eth0": {{Direction: "from_guest", Reason: "forged-mac", Packets: 3, Bytes: 180}}}, nil
		},
	})
	expect("/readyz", http.StatusServiceUnavailable, "not ready yet")
	if _, body := get("/metrics"); strings.Contains(body, "guard_dropped") {
		t.Errorf("counters that could not be read are there:\n%s", body)
	}
	status.Interfaces[0].Differences = []prepare.Difference{{Interface: "eth0", What: "br-eth0", Is: "down", Want: "up", Remedy: "prepare again"}}
	expect("/readyz", http.StatusServiceUnavailable, "eth0: br-eth0 is down, not up: prepare again")
	status.Interfaces[0].Differences = nil
	status.Ready, status.StartSeconds, guardErr = true, 0.02, nil
	expect("/readyz", http.StatusOK)
	expect("/metrics", http.StatusOK,
		"virt_launcher_net_ready 1",
		"virt_launcher_net_prepare_duration_seconds 0.008",
		"virt_launcher_net_start_duration_seconds 0.02",
		`virt_launcher_net_dhcp_lease_state{interface="eth0",protocol="dhcpv4",state="bound"} 1`,
		`virt_launcher_net_dhcp_lease_state{interface="eth0",protocol="dhcpv4",state="none"} 0`,
		`virt_launcher_net_dhcp_lease_bound_timestamp_seconds{interface="eth0",protocol="dhcpv4"} 1.7000000005e+09`,
		`virt_launcher_net_dhcp_lease_renewed_timestamp_seconds{interface="eth0",protocol="dhcpv4"} 1.7000001e+09`,
		`virt_launcher_net_dhcp_lease_expiry_timestamp_seconds{interface="eth0",protocol="dhcpv4"} 1.7000036e+09`,
		`virt_launcher_net_dhcp_lease_declined_timestamp_seconds{interface="eth0",protocol="dhcpv4"} 1.6e+09`,
		`virt_launcher_net_messages_received_total{interface="eth0",protocol="dhcpv4",type="DISCOVER"} 2`,
		`virt_launcher_net_messages_sent_total{interface="eth0",protocol="dhcpv4",type="OFFER"} 2`,
		`virt_launcher_net_messages_dropped_total{interface="eth0",protocol="dhcpv4",reason="`+string(lease.DropOverBudget)+`"} 7`,
		`virt_launcher_net_guard_dropped_packets_total{direction="from_guest",interface="eth0",reason="forged-mac"} 3`,
		`virt_launcher_net_guard_dropped_bytes_total{direction="from_guest",interface="eth0",reason="forged-mac"} 180`,
		"process_resident_memory_bytes", "go_goroutines",
	)
	_, body := get("/metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("the metrics break Prometheus' conventions: %v, %v", problems, err)
	}
	if code, _ := get("/elsewhere"); code != http.StatusNotFound {
		t.Errorf("/elsewhere: %d", code)
	}
}

// At the end the socket is gone, but not what somebody has put in its place.
func TestSocketIsRemoved(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "monitor.sock")
		m, err := monitor.Listen(t.Context(), nil, "unix:"+path, "")
		if err != nil {
			t.Fatal(err)
		}
		if replaced {
			if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("a record"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); replaced != (err == nil) {
			t.Errorf("replaced %v, afterwards %v", replaced, err)
		}
	}
}

// A socket that a killed process left is replaced, one that answers is not, and
// neither is a file.
func TestListenOnUsedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "monitor.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	_, get := start(t, path)
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("%d", code)
	}
	if _, err := monitor.Listen(t.Context(), nil, "unix:"+path, ""); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("a second one listens: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"unix:" + file, "unix:/nowhere/sock", "nonsense", "127.0.0.1:99999"} {
		if _, err := monitor.Listen(t.Context(), nil, address, ""); err == nil {
			t.Errorf("listens on %s", address)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "kept" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestListenNowhere(t *testing.T) {
	t.Parallel()
	_, err := monitor.Listen(t.Context(), nil, "192.0.2.254:0", "")
	if err == nil || !strings.Contains(err.Error(), "no link here that is up has this address") {
		t.Errorf("%v", err)
	}
}
