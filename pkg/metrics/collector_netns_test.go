package metrics_test

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/metrics"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A launcher registers its sessions where its own metrics are, told apart by a label.
func TestSessionsInOneRegistry(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for _, name := range []string{"a", "b"} {
		pod := podtest.NewPod(t, podtest.Flannel)
		session, err := prestart.Hook{Netns: pod.Path(), StateDir: t.TempDir(), SkipCheck: name == "b"}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := session.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		labels := prometheus.WrapRegistererWith(prometheus.Labels{"pod": name}, registry)
		if err := labels.Register(metrics.NewCollector(session)); err != nil {
			t.Fatal(err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
		if f.GetName() == "virt_launcher_net_ready" && (f.GetMetric()[0].GetGauge().GetValue() != 1 || f.GetMetric()[1].GetGauge().GetValue() != 1) {
			t.Errorf("not ready: %v", f)
		}
	}
	if series["virt_launcher_net_ready"] != 2 || series["virt_launcher_net_dhcp_lease_state"] != 6 {
		t.Errorf("there are %v", series)
	}
}

func ExampleNewCollector() {
	session, err := prestart.Hook{}.Run(context.Background())
	if err != nil {
		return
	}
	prometheus.MustRegister(metrics.NewCollector(session))
}

// A variable that holds no session yet is one that is yet to start.
func TestNoSessionYet(t *testing.T) {
	var session *prestart.Session
	for name, collector := range map[string]*metrics.Collector{"nil": metrics.NewCollector(nil), "a nil session": metrics.NewCollector(session)} {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(collector)
		families, err := registry.Gather()
		if err != nil || len(families) != 1 || families[0].GetMetric()[0].GetGauge().GetValue() != 0 {
			t.Errorf("%s: %v, %v", name, families, err)
		}
	}
}
