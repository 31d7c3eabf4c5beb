package main

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// stepwise is the way whose steps are timed; it has no row of its own.
const stepwise = "in a process: prepare, by steps"

// stepClock is a log that notes how long each change takes that prepare tells
// of: until it tells of the next one.
type stepClock struct {
	mu    sync.Mutex
	names []string // in the order of their first time
	took  map[string][]float64
	now   string
	since time.Time
}

// beforeChanges is the step that no log tells of.
const beforeChanges = "lock, discovery, reading, plan, record"

// time prepares a pod and notes the steps.
func (c *stepClock) time(ctx context.Context, p *pod, w wiring) (time.Duration, error) {
	took, err := p.inProcess(func(p *pod, index int) error {
		c.next(beforeChanges)
		defer c.next("")
		return p.hook(ctx, slog.New(c), w)(p, index)
	})
	return took, err
}

func (c *stepClock) next(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.now != "" {
		if c.took == nil {
			c.took = map[string][]float64{}
		}
		if c.took[c.now] == nil {
			c.names = append(c.names, c.now)
		}
		c.took[c.now] = append(c.took[c.now], millis(now.Sub(c.since)))
	}
	c.now, c.since = name, time.Now()
}

// A MAC, or an address of a pod, is another one in each pod.
var ofOnePod = regexp.MustCompile(`(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|10\.244\.[0-9]+\.[0-9]+(/[0-9]+)?|fe80:[0-9a-f:]+(/[0-9]+)?`)

// Handle takes note of a change that is about to be made.
func (c *stepClock) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "change" {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		line, _, _ := strings.Cut(a.Value.Resolve().String(), "\n")
		c.next(ofOnePod.ReplaceAllString(line, "…"))
		return false
	})
	return nil
}

// Enabled says yes to all: changes are told of at the lowest level.
func (c *stepClock) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs returns the same log.
func (c *stepClock) WithAttrs([]slog.Attr) slog.Handler { return c }

// WithGroup returns the same log.
func (c *stepClock) WithGroup(string) slog.Handler { return c }

// longest returns the p50 and the share of the steps that take most, in the
// order in which they are made, and of the others together.
func (c *stepClock) longest(n int) []row {
	var all []row
	var sum float64
	for _, name := range c.names {
		v := quantile(c.took[name], 0.5)
		all = append(all, row{name, []float64{v}})
		sum += v
	}
	bySize := slices.Clone(all)
	slices.SortStableFunc(bySize, func(a, b row) int { return int(1e6 * (b.values[0] - a.values[0])) })
	others := row{"the others", []float64{0}}
	var rows []row
	for _, r := range all {
		if slices.ContainsFunc(bySize[:min(n, len(bySize))], func(b row) bool { return b.name == r.name }) {
			rows = append(rows, r)
		} else {
			others.values[0] += r.values[0]
		}
	}
	rows = append(rows, others)
	for i := range rows {
		rows[i].values = append(rows[i].values, 100*rows[i].values[0]/max(sum, 1e-9))
	}
	return rows
}
