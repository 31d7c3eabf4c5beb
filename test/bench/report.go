package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What in performance.md is written by the program.
const (
	beginMark = "<!-- measured: begin -->\n"
	endMark   = "<!-- measured: end -->\n"
)

// writeDocs puts the measured part into performance.md and the plots, by the
// names of their files, beside it.
func writeDocs(dir, text string, plots map[string]string) error {
	path := filepath.Join(dir, "performance.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write tables: %w", err)
	}
	before, rest, found := bytes.Cut(doc, []byte(beginMark))
	_, after, foundEnd := bytes.Cut(rest, []byte(endMark))
	if !found || !foundEnd {
		return fmt.Errorf("write tables: %s has not %q and %q", path, beginMark, endMark)
	}
	whole := string(before) + beginMark + text + endMark + string(after)
	err = os.WriteFile(path, []byte(whole), 0o644)
	for name, plot := range plots {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(plot), 0o644))
	}
	return err
}

// markdown is the machine and a table for each comparison.
func (r *result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", machine())
	fmt.Fprintf(&b, "%d rounds; in each, every server has %v with one exchange at a time and %[2]v with %d under way.\n\n",
		r.bench.rounds, r.bench.turn, r.bench.atOnce)
	b.WriteString("| Server | p50 µs | p99 µs | exchanges/s on one core | CPU µs per exchange | RSS MiB | lost |\n|---|--:|--:|--:|--:|--:|--:|\n")
	for _, s := range r.servers {
		fmt.Fprintf(&b, "| %s: %s | %.0f | %.0f | %.0f | %.1f | %.1f | %d |\n", s.name, s.note,
			s.p50(), micros(quantile(s.latencies, 0.99)), s.throughput(), micros(s.cpu)/float64(max(s.exchanges, 1)), s.rss, s.lost)
	}
	r.idleMarkdown(&b)
	r.bootsMarkdown(&b)
	b.WriteString("\n| Program | RSS MiB |\n|---|--:|\n")
	for _, m := range r.memory {
		fmt.Fprintf(&b, "| %s | %.1f |\n", m.name, m.values[0])
	}
	r.preparesMarkdown(&b)
	r.datapaths.markdown(&b)
	r.scaleMarkdown(&b)
	r.nodeMarkdown(&b)
	b.WriteString("\n| Aim | | seen | |\n|---|--:|--:|---|\n")
	for _, a := range r.aims() {
		fmt.Fprintln(&b, a)
	}
	return b.String()
}

func (r *result) preparesMarkdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n| A pod of flannel's, %d times | p50 ms | p90 ms |\n|---|--:|--:|\n", r.bench.prepares)
	for _, p := range r.prepares {
		fmt.Fprintf(b, "| %s | %.1f | %.1f |\n", p.name, p.values[0], p.values[1])
	}
	stepsMarkdown(b, "Step of prepare, in a process", &r.steps)
	stepsMarkdown(b, "Step of prepare by redirect, in a process", &r.redirectSteps)
}

func stepsMarkdown(b *strings.Builder, title string, c *stepClock) {
	fmt.Fprintf(b, "\n| %s | p50 ms | share |\n|---|--:|--:|\n", title)
	for _, s := range c.longest(longestSteps) {
		fmt.Fprintf(b, "| %s | %.2f | %.0f %% |\n", s.name, s.values[0], s.values[1])
	}
}

// longestSteps is how many steps the table shows one by one.
const longestSteps = 8

func (r *result) scaleMarkdown(b *strings.Builder) {
	b.WriteString("\n| Pods at once | | p50 ms | p99 ms | ms per pod: total / pods | CPU ms per pod | RSS MiB | PSS MiB |\n" +
		"|--:|---|--:|--:|--:|--:|--:|--:|\n")
	for _, s := range r.scale {
		fmt.Fprintf(b, "| %d | %s | %.0f | %.0f | %.1f | %.1f | %.1f | %.1f |\n", s.pods, s.name, quantile(s.took, 0.5), quantile(s.took, 0.99),
			quantile(s.perPod, 0.5), quantile(s.cpu, 0.5), quantile(s.rss, 0.5), quantile(s.pss, 0.5))
	}
}

func (s *serverResult) p50() float64        { return micros(quantile(s.latencies, 0.5)) }
func (s *serverResult) throughput() float64 { return s.perSecond }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// machine is what the numbers depend on.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, found := strings.Cut(string(text), "model name\t: "); found {
			model, _, _ = strings.Cut(rest, "\n")
		}
	}
	var name unix.Utsname
	kernel := "unknown"
	if unix.Uname(&name) == nil {
		kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	}
	return fmt.Sprintf("Machine: %s, %d cores, Linux %s, %s.", model, runtime.NumCPU(), kernel, runtime.Version())
}
