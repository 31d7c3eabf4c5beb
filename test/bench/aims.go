package main

import (
	"fmt"
	"math"
	"slices"
)

// aim is something wanted of a measured value.
type aim struct {
	what    string
	atLeast bool // otherwise at most
	limit   float64
	unit    string
	seen    float64 // NaN: not measured in this run
}

func (a aim) String() string {
	sign, met := "≤", a.seen <= a.limit
	if a.atLeast {
		sign, met = "≥", a.seen >= a.limit
	}
	verdict := "met"
	if !met {
		verdict = "**missed**"
	}
	return fmt.Sprintf("| %s | %s %g%s | %.2f%s | %s |", a.what, sign, a.limit, a.unit, a.seen, a.unit, verdict)
}

// flat is how far the time per pod may grow and still count as flat.
const flat = 1.25

// aims holds what was measured against what was wanted.
func (r *result) aims() []aim {
	ours, dnsmasq := r.server("ours"), r.server("dnsmasq")
	most, ten := r.at(scaleRun, r.bench.pods), r.at(scaleRun, 10)
	all := []aim{
		{what: "p50 of an exchange, of dnsmasq's", limit: 0.5, seen: ours.p50() / dnsmasq.p50()},
		{what: "exchanges/s on one core, of dnsmasq's", atLeast: true, limit: 2, seen: ours.throughput() / dnsmasq.throughput()},
		{what: "prepare in a process, of the bare calls", limit: 2.5, seen: r.ratio(inProcess, bareCalls)},
		{what: "`prepare`, of the script", limit: 0.3, seen: r.ratio(prepareStatic, scriptAlone)},
		{what: "`prepare --datapath redirect`, of the script", limit: 0.15, seen: r.ratio(prepareRedirect, scriptAlone)},
		{what: "prepare by redirect in a process, of the bridge's", limit: 0.5, seen: r.ratio(inProcessRedirect, inProcess)},
		{what: "`prepare --datapath redirect`, of the bridge's", limit: 0.5, seen: r.ratio(prepareRedirect, prepareStatic)},
		{what: "`run` until a guest could boot, of the script with dnsmasq", limit: 0.3, seen: r.ratio(runStatic, scriptServing)},
		{
			what:  fmt.Sprintf("time per pod, total / pods, with %d at once, of that with %d", most.pods, ten.pods),
			limit: flat, seen: quantile(most.perPod, 0.5) / quantile(ten.perPod, 0.5),
		},
		{what: fmt.Sprintf("RSS of the largest of %d `run`", most.pods), limit: 10, unit: " MiB", seen: largest(most.rss)},
		{what: fmt.Sprintf("of that private, of the largest of %d `run`", most.pods), limit: 2, unit: " MiB", seen: largest(most.private)},
	}
	all = slices.Concat(all, r.idleAims(), r.bootAims(), r.datapaths.aims(), r.nodeAims())
	return slices.DeleteFunc(all, func(a aim) bool { return math.IsNaN(a.seen) })
}

func largest(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return slices.Max(values)
}

// server returns what the server of that name did.
func (r *result) server(name string) *serverResult {
	for _, s := range r.servers {
		if s.name == name {
			return s
		}
	}
	return &serverResult{}
}

// ratio is that of two ways' p50.
func (r *result) ratio(a, b string) float64 {
	of := map[string]float64{}
	for _, p := range r.prepares {
		of[p.name] = p.values[0]
	}
	return of[a] / of[b]
}

// at returns what so many pods at once, or the most that are fewer, took.
func (r *result) at(name string, pods int) *scaleResult {
	found := &scaleResult{}
	for _, s := range r.scale {
		if s.name == name && s.pods <= pods {
			found = s
		}
	}
	return found
}
