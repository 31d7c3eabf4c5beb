package main

import (
	"fmt"
	"math"
	"strings"
)

// Of the plot, in pixels.
const (
	plotWidth = 720
	labelAt   = 110
	barsAt    = 120
	ours      = "#1f77b4"
	others    = "#9aa5b1"
	barHeight = 18
	barStep   = 26
	panelGap  = 46
)

// serversSVG is a plot: bars of the service time, and of the exchanges per second.
func (r *result) serversSVG() string {
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
		color := others
		if s.name == "ours" {
			color = ours
		}
		width := value(s) / most * (plotWidth - barsAt - 70)
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelAt, y+14, s.name)
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, barsAt, y, width, barHeight, color)
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%.0f</text>`+"\n", barsAt+width+6, y+14, value(s))
	}
}

// Of the plot of many pods, in pixels.
const (
	scaleHeight = 300
	scaleTop    = 50
	scaleBottom = 250
	scaleLeft   = 60
	scaleRight  = 600
)

// scaleSVG is a plot: the time per pod over how many start at once, with one
// line for the program and one for the script.
func (r *result) scaleSVG() string {
	most, pods := 1.0, 2
	for _, s := range r.scale {
		most, pods = max(most, quantile(s.perPod, 0.5)), max(pods, s.pods)
	}
	x := func(n int) float64 {
		return scaleLeft + math.Log(float64(n))/math.Log(float64(pods))*(scaleRight-scaleLeft)
	}
	y := func(ms float64) float64 { return scaleBottom - ms/most*(scaleBottom-scaleTop) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", plotWidth, scaleHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, scaleHeight)
	b.WriteString(`<text x="10" y="24" font-weight="bold">Until all pods serve, by pods at once: ms per pod (less is better)</text>` + "\n")
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#ccc"/>`+"\n", scaleLeft, scaleTop, scaleBottom, scaleRight)
	for _, line := range []struct{ name, label, color string }{{scaleScript, "script and dnsmasq", others}, {scaleRun, "run", ours}} {
		path, end := "M", ""
		for _, s := range r.scale {
			if s.name != line.name {
				continue
			}
			v := quantile(s.perPod, 0.5)
			path += fmt.Sprintf("%.1f %.1f ", x(s.pods), y(v))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x(s.pods), y(v), line.color)
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%.1f</text>`, x(s.pods), y(v)-8, v)
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(s.pods), scaleBottom+20, s.pods)
			end = fmt.Sprintf(`<text x="%.1f" y="%.1f">%s</text>`+"\n", x(s.pods)+16, y(v)+4, line.label)
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n%s", strings.TrimSpace(path), line.color, end)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">pods at once</text>`+"\n</svg>\n", (scaleLeft+scaleRight)/2, scaleBottom+42)
	return b.String()
}
