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

// writeDocs puts the measured part into performance.md and the plot beside it.
func writeDocs(dir, text, plot string) error {
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
	return errors.Join(os.WriteFile(path, []byte(whole), 0o644),
		os.WriteFile(filepath.Join(dir, "performance.svg"), []byte(plot), 0o644))
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
	b.WriteString("\n| Program | RSS MiB |\n|---|--:|\n")
	for _, m := range r.memory {
		fmt.Fprintf(&b, "| %s | %.1f |\n", m.name, m.values[0])
	}
	if len(r.prepares) == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, "\n| A pod of flannel's, %d times | p50 ms | p90 ms |\n|---|--:|--:|\n", r.bench.prepares)
	for _, p := range r.prepares {
		fmt.Fprintf(&b, "| %s | %.1f | %.1f |\n", p.name, p.values[0], p.values[1])
	}
	return b.String()
}

func (s *serverResult) p50() float64        { return micros(quantile(s.latencies, 0.5)) }
func (s *serverResult) throughput() float64 { return s.perSecond }

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

// Of the plot, in pixels.
const (
	plotWidth = 720
	labelAt   = 110
	barsAt    = 120
	barHeight = 18
	barStep   = 26
	panelGap  = 46
)

// svg is the plot: bars of the service time, and of the exchanges per second.
func (r *result) svg() string {
	panel := barStep*len(r.servers) + panelGap
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", plotWidth, 2*panel)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, 2*panel)
	r.panel(&b, 0, "Service time of DISCOVER, OFFER, REQUEST, ACK: p50 in µs (less is better)", (*serverResult).p50)
	r.panel(&b, panel, "Exchanges per second on one core (more is better)", (*serverResult).throughput)
	b.WriteString("</svg>\n")
	return b.String()
}

func (r *result) panel(b *strings.Builder, top int, title string, value func(*serverResult) float64) {
	most := 1.0
	for _, s := range r.servers {
		most = max(most, value(s))
	}
	fmt.Fprintf(b, `<text x="10" y="%d" font-weight="bold">%s</text>`+"\n", top+24, title)
	for i, s := range r.servers {
		y := top + 38 + i*barStep
		color := "#9aa5b1"
		if s.name == "ours" {
			color = "#1f77b4"
		}
		width := value(s) / most * (plotWidth - barsAt - 70)
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelAt, y+14, s.name)
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, barsAt, y, width, barHeight, color)
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%.0f</text>`+"\n", barsAt+width+6, y+14, value(s))
	}
}
