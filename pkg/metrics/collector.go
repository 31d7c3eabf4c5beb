// Package metrics tells Prometheus of a session, for a launcher with a registry of
// its own:
//
//	registry.MustRegister(metrics.NewCollector(session))
//
// A process with many sessions tells them apart by a label:
//
//	prometheus.WrapRegistererWith(prometheus.Labels{"pod": name}, registry).MustRegister(…)
//
// docs/operations.md lists the metrics.
package metrics

import (
	"reflect"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/virt-launcher-net/virt-launcher-net/internal/metric"
)

// Session is what the metrics are of: a session of package prestart, or one that reads the
// counters in another way. Counters that it returns beside an error count. Its methods, as
// those of [prestart.Session]:
//
//	Status() control.Status
//	GuardCounters() (map[string][]prepare.GuardCounter, error)
//
// [prestart.Session]: https://pkg.go.dev/github.com/virt-launcher-net/virt-launcher-net/pkg/prestart#Session
type Session = metric.Session

// Collector is a [prometheus.Collector]. It reads everything at the time of the
// scrape. A session that is closed is not ready, and keeps its other values: unregister
// its collector.
type Collector struct {
	session Session
	descs   map[*metric.Desc]*prometheus.Desc
}

// NewCollector returns the collector of a session. Nil is one that is yet to start:
// it is not ready.
func NewCollector(s Session) *Collector {
	if v := reflect.ValueOf(s); v.Kind() == reflect.Pointer && v.IsNil() { // of a variable that has no session yet
		s = nil
	}
	c := &Collector{s, map[*metric.Desc]*prometheus.Desc{}}
	for _, d := range metric.OfSession {
		c.descs[d] = prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	metric.Read(c.session, func(d *metric.Desc, value float64, labels ...string) {
		kind := prometheus.GaugeValue
		if d.Counter {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(c.descs[d], kind, value, labels...)
	})
}
