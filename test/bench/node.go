package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// addsAtOnce is how many sandboxes a runtime makes at a time.
	addsAtOnce = 10
	// idleFor is how long an agent whose guests have booted is watched.
	idleFor = 10 * time.Second
	// settleFor is until what a boot has begun is over, and memory that was needed for it is given back.
	settleFor = 15 * time.Second
)

// nodeResult is what a number of VM pods took on a node, by one agent or by sidecars.
type nodeResult struct {
	name   string
	pods   int
	add    []float64 // ms, each: until the pod is prepared and its VM could boot
	rss    float64   // MiB, of all
	pss    float64   // MiB, likewise
	idle   float64   // ms of CPU time in a second, of all
	leases []float64 // ms, from DISCOVER to ACK, where all guests boot at once
	files  float64   // open descriptors, of all
}

// Ways on a node.
const (
	nodeAgent    = "plugin and agent"
	nodeSidecars = "sidecars (`run`)"
)

// measureNode has the VMs of a node served by one agent, and by a sidecar each.
func (b bench) measureNode(ctx context.Context, r *result) error {
	for _, st := range b.stages() {
		for _, way := range []struct {
			name string
			take func(context.Context, *site, *nodeResult) ([]int, func() error, error)
		}{{nodeAgent, b.byAgent}, {nodeSidecars, b.bySidecars}} {
			n := &nodeResult{name: way.name, pods: st.pods}
			if err := b.measureWay(ctx, n, way.take); err != nil {
				return fmt.Errorf("%d pods by %s: %w", st.pods, way.name, err)
			}
			r.nodes = append(r.nodes, n)
		}
	}
	return nil
}

func (b bench) measureWay(ctx context.Context, n *nodeResult, take func(context.Context, *site, *nodeResult) ([]int, func() error, error)) (err error) {
	s, err := newSite(ctx, n.pods)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	pids, end, err := take(ctx, s, n)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return err
	}
	if n.leases, err = bootAll(s.pods); err != nil {
		return err
	}
	time.Sleep(settleFor)
	before, err := cpuOf(pids)
	if err != nil {
		return err
	}
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := cpuOf(pids)
	if err != nil {
		return err
	}
	n.idle = millis(after-before) / idleFor.Seconds()
	for _, pid := range pids {
		resident, err := rss(pid)
		if err != nil {
			return err
		}
		share, err := pss(pid)
		if err != nil {
			return err
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return fmt.Errorf("count open files: %w", err)
		}
		n.rss, n.pss, n.files = n.rss+resident, n.pss+share, n.files+float64(len(files))
	}
	return nil
}

func cpuOf(pids []int) (all time.Duration, err error) {
	for _, pid := range pids {
		took, err := cpu(pid)
		if err != nil {
			return 0, err
		}
		all += took
	}
	return all, nil
}

// timed calls do for each pod, so many at once, and notes how long each took.
func (n *nodeResult) timed(pods []*pod, do func(*pod) error) error {
	took := make([]float64, len(pods))
	var all errgroup.Group
	all.SetLimit(addsAtOnce)
	for i, p := range pods {
		all.Go(func() error {
			start := time.Now()
			err := do(p)
			took[i] = millis(time.Since(start))
			return err
		})
	}
	n.add = took
	return all.Wait()
}

// nodeAims are those of the agent with the most pods.
func (r *result) nodeAims() []aim {
	var most *nodeResult
	for _, n := range r.nodes {
		if n.name == nodeAgent {
			most = n
		}
	}
	if most == nil {
		return nil
	}
	of := fmt.Sprintf(" with %d VM pods", most.pods)
	return []aim{
		{what: "RSS of the agent" + of, limit: 60, unit: " MiB", seen: most.rss},
		{what: "idle CPU of the agent" + of, limit: 1, unit: " ms/s", seen: most.idle},
		{what: fmt.Sprintf("ADD of the plugin, %d at once, p99", addsAtOnce), limit: 25, unit: " ms", seen: quantile(most.add, 0.99)},
	}
}

func (r *result) nodeMarkdown(b *strings.Builder) {
	b.WriteString("\n| VM pods | by | ms per pod, 10 at once: p50 | p99 | memory MiB (RSS) | (PSS) | open files | idle CPU ms/s | lease, all at once, ms: p50 | p99 |\n" +
		"|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, n := range r.nodes {
		fmt.Fprintf(b, "| %d | %s | %.1f | %.1f | %.1f | %.1f | %.0f | %.2f | %.1f | %.1f |\n", n.pods, n.name, quantile(n.add, 0.5), quantile(n.add, 0.99),
			n.rss, n.pss, n.files, n.idle, quantile(n.leases, 0.5), quantile(n.leases, 0.99))
	}
}
