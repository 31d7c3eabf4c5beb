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
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

const namespace = "virt_launcher_net"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// The metrics; docs/operations.md lists the same.
var (
	ready           = desc("ready", "1 while the network is prepared, as planned, and served.")
	prepareDuration = desc("prepare_duration_seconds", "How long discovering and preparing the pod's network took.")
	startDuration   = desc("start_duration_seconds", "How long it took from the start until a guest could boot.")
	leaseState      = desc("dhcp_lease_state", "1 for the state that the guest's lease is in, 0 for the others.", "interface", "protocol", "state")
	leaseBound      = desc("dhcp_lease_bound_timestamp_seconds", "When the guest got its lease; none while it has none.", "interface", "protocol")
	leaseRenewed    = desc("dhcp_lease_renewed_timestamp_seconds", "When the guest last renewed its lease; none before that.", "interface", "protocol")
	leaseExpires    = desc("dhcp_lease_expiry_timestamp_seconds", "When the lease ends if it is not renewed; none if it never does.", "interface", "protocol")
	leaseDeclined   = desc("dhcp_lease_declined_timestamp_seconds", "When the guest last refused its address because somebody else uses it; none before that.", "interface", "protocol")
	received        = desc("messages_received_total", "DHCP messages and router solicitations from the guest.", "interface", "protocol", "type")
	sent            = desc("messages_sent_total", "DHCP messages and router advertisements to the guest.", "interface", "protocol", "type")
	dropped         = desc("messages_dropped_total", "Frames and messages from the guest that got no answer.", "interface", "protocol", "reason")
	guardPackets    = desc("guard_dropped_packets_total", "Frames that the port guard kept from crossing between VM and pod network, and why.", "interface", "direction", "reason")
	guardBytes      = desc("guard_dropped_bytes_total", "Bytes of these frames.", "interface", "direction", "reason")
)

// Session is what the metrics are of: a session of package prestart, or one that reads the
// counters in another way. Counters that it returns beside an error count.
type Session interface {
	Status() control.Status
	GuardCounters() (map[string][]prepare.GuardCounter, error)
}

// Collector is a [prometheus.Collector]. It reads everything at the time of the
// scrape. A session that is closed is not ready, and keeps its other values: unregister
// its collector.
type Collector struct{ session atomic.Pointer[Session] }

// NewCollector returns the collector of a session. Nil is one that is yet to start:
// it is not ready, and Watch names it.
func NewCollector(s Session) *Collector {
	c := &Collector{}
	if s != nil {
		c.Watch(s)
	}
	return c
}

// Watch makes s the session that the metrics are of.
func (c *Collector) Watch(s Session) { c.session.Store(&s) }

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		ready, prepareDuration, startDuration, leaseState, leaseBound, leaseRenewed, leaseExpires, leaseDeclined,
		received, sent, dropped, guardPackets, guardBytes,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	moment := func(d *prometheus.Desc, at time.Time, labels ...string) {
		if !at.IsZero() {
			gauge(d, float64(at.UnixMilli())/1e3, labels...)
		}
	}
	session := c.session.Load()
	if session == nil {
		gauge(ready, 0)
		return
	}
	s := *session
	status := s.Status()
	gauge(ready, oneIf(status.Ready))
	if status.PrepareSeconds > 0 {
		gauge(prepareDuration, status.PrepareSeconds)
	}
	if status.StartSeconds > 0 {
		gauge(startDuration, status.StartSeconds)
	}
	messages := func(name, protocol string, in, out map[string]uint64, left map[lease.DropReason]uint64) {
		for typ, n := range in {
			counter(received, n, name, protocol, typ)
		}
		for typ, n := range out {
			counter(sent, n, name, protocol, typ)
		}
		for reason, n := range left {
			counter(dropped, n, name, protocol, string(reason))
		}
	}
	lease := func(name, protocol string, l *lease.Status) {
		if l == nil {
			return
		}
		for _, state := range []lease.State{lease.None, lease.Offered, lease.Bound} {
			gauge(leaseState, oneIf(l.State == state), name, protocol, string(state))
		}
		if l.State == lease.Bound {
			moment(leaseBound, l.Since, name, protocol)
		}
		moment(leaseRenewed, l.Renewed, name, protocol)
		moment(leaseExpires, l.Expires, name, protocol)
		moment(leaseDeclined, l.Declined, name, protocol)
		messages(name, protocol, l.Received, l.Sent, l.Dropped)
	}
	for _, i := range status.Interfaces {
		lease(i.Name, "dhcpv4", i.Lease)
		lease(i.Name, "dhcpv6", i.Lease6)
		if r := i.Router; r != nil {
			messages(i.Name, "ra", r.Received, r.Sent, r.Dropped)
		}
	}
	guards, _ := s.GuardCounters() // what can't be read is not there
	for name, counters := range guards {
		for _, c := range counters {
			counter(guardPackets, c.Packets, name, string(c.Direction), string(c.Reason))
			counter(guardBytes, c.Bytes, name, string(c.Direction), string(c.Reason))
		}
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
