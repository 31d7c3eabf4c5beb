package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// wiring is how the program prepares a pod.
type wiring struct {
	datapath string
	guard    bool
	podPorts string
}

var (
	byBridge   = wiring{datapath: "bridge", guard: true}
	byRedirect = wiring{datapath: "redirect", guard: true, podPorts: "8080"}
)

// flags are the program's for it.
func (w wiring) flags() []string {
	flags := []string{"--datapath", w.datapath}
	if !w.guard {
		flags = append(flags, "--guard=off")
	}
	if w.podPorts != "" {
		flags = append(flags, "--pod-ports", w.podPorts)
	}
	return flags
}

// datapath is a way between a pod's interface and a tap.
type datapath struct {
	name string
	make func(ctx context.Context, p *pod) error
}

// Datapaths that are compared with others.
const (
	bridgeGuarded   = "bridge"
	redirectGuarded = "redirect"
	plainRedirect   = "tc: u32 and mirred, nothing else"
)

func (b bench) allDatapaths() []datapath {
	prepared := func(w wiring) func(context.Context, *pod) error {
		return func(ctx context.Context, p *pod) error {
			_, err := p.command(ctx, b.static, p.args(append([]string{"prepare"}, w.flags()...)...)...)
			return err
		}
	}
	unguarded := func(w wiring) wiring { w.guard = false; return w }
	return []datapath{
		{bridgeGuarded, prepared(byBridge)},
		{bridgeGuarded + ", without guard", prepared(unguarded(byBridge))},
		{redirectGuarded, prepared(byRedirect)},
		{redirectGuarded + ", without guard", prepared(unguarded(byRedirect))},
		{plainRedirect, redirectByTC},
	}
}

// redirectByTC has all frames cross between the pod's interface and a tap, and does
// nothing else.
func redirectByTC(ctx context.Context, p *pod) error {
	if err := p.ns.Batch(ctx, "tuntap add "+podTap+" mode tap vnet_hdr", "link set "+podTap+" mtu 1450 addrgenmode none up"); err != nil {
		return err
	}
	for _, way := range [][2]string{{podLink, podTap}, {podTap, podLink}} {
		if _, err := p.ns.Output(ctx, "tc", "qdisc", "add", "dev", way[0], "ingress"); err != nil {
			return err
		}
		if _, err := p.ns.Output(ctx, "tc", "filter", "add", "dev", way[0], "ingress", "protocol", "all",
			"u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", way[1]); err != nil {
			return err
		}
	}
	return nil
}

// podTap is what the program calls a pod's tap.
const podTap = "tap-" + podLink

// traffic is what is measured of a datapath, once in each round.
type traffic struct {
	name, format string
	measure      func(b bench, p *path) (float64, error)
}

// Traffic of which something is wanted.
const (
	toGuest   = "node → guest, frames/s"
	fromGuest = "guest → node, frames/s"
	smallTCP  = "TCP, segments/s"
)

var allTraffic = []traffic{
	{toGuest, "%.0f", framesToGuest},
	{fromGuest, "%.0f", framesFromGuest},
	{smallTCP, "%.0f", smallSegments},
	{"TCP, Gbit/s", "%.1f", bulk},
	{"round trip p50 µs", "%.2f", roundTrip},
}

// datapathsResult is what was seen of the datapaths.
type datapathsResult struct {
	names []string
	seen  map[string]map[string][]float64 // by traffic, by datapath, in each round
}

// compareDatapaths sends the same over each datapath in turn, each between a pod and
// a node's end of its link, without a bridge on the node.
func (b bench) compareDatapaths(ctx context.Context, r *result) (err error) {
	all := b.allDatapaths()
	s, err := newSite(ctx, len(all))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r.datapaths.seen = map[string]map[string][]float64{}
	var paths []*path
	defer func() {
		for _, p := range paths {
			err = errors.Join(err, p.close())
		}
	}()
	for i, d := range all {
		p, err := newPath(ctx, s, i, d)
		if err != nil {
			return fmt.Errorf("datapath %s: %w", d.name, err)
		}
		paths = append(paths, p)
		r.datapaths.names = append(r.datapaths.names, d.name)
	}
	for _, t := range allTraffic {
		r.datapaths.seen[t.name] = map[string][]float64{}
	}
	for round := range b.rounds {
		for _, t := range allTraffic {
			for i := range paths {
				p := paths[(i+round)%len(paths)] // nobody is always first
				if err := ctx.Err(); err != nil {
					return err
				}
				v, err := t.measure(b, p)
				if err != nil {
					return fmt.Errorf("datapath %s: %s: %w", p.name, t.name, err)
				}
				r.datapaths.seen[t.name][p.name] = append(r.datapaths.seen[t.name][p.name], v)
			}
		}
	}
	return nil
}

func (r *datapathsResult) markdown(b *strings.Builder) {
	if len(r.names) == 0 {
		return
	}
	b.WriteString("\n| Datapath |")
	for _, t := range allTraffic {
		b.WriteString(" " + t.name + " |")
	}
	fmt.Fprintf(b, "\n|---|%s\n", strings.Repeat("--:|", len(allTraffic)))
	for _, name := range r.names {
		fmt.Fprintf(b, "| %s |", name)
		for _, t := range allTraffic {
			fmt.Fprintf(b, " "+t.format+" |", quantile(r.seen[t.name][name], 0.5))
		}
		b.WriteString("\n")
	}
}

// aims compare the datapaths in each round by itself: what else runs differs less
// within one.
func (r *datapathsResult) aims() (out []aim) {
	if len(r.names) == 0 {
		return nil
	}
	for _, column := range []string{toGuest, fromGuest, smallTCP} {
		for _, other := range []aim{
			{what: bridgeGuarded, limit: 1.1},
			{what: plainRedirect, limit: 0.85},
		} {
			var ratios []float64
			for i, v := range r.seen[column][redirectGuarded] {
				ratios = append(ratios, v/r.seen[column][other.what][i])
			}
			out = append(out, aim{what: fmt.Sprintf("redirect, %s, of %s", column, other.what), atLeast: true, limit: other.limit, seen: quantile(ratios, 0.5)})
		}
	}
	return out
}
