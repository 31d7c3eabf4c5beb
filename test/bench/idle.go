package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Servers that are asked after a pause. The program is the built one.
const (
	idleCanned  = "canned"
	idleOurs    = "`serve`"
	idleDnsmasq = "dnsmasq"
)

// Protocols that they are asked by.
const (
	overIPv4 = "DHCP"
	overIPv6 = "DHCPv6"
)

// idleResult is how long the exchanges with a server took that was asked after a pause.
type idleResult struct {
	name, protocol string
	took           []time.Duration
	lost           int
}

// compareIdle asks each server now and then, one after the other, as guests do that
// boot.
func (b bench) compareIdle(ctx context.Context, r *result) (err error) {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	var all []*running
	defer func() {
		for _, s := range all {
			err = errors.Join(err, s.close())
		}
	}()
	contenders := []contender{
		{name: idleCanned, start: func(string) ([]string, error) { return []string{self, "canned"}, nil }},
		{name: idleOurs, start: serveNIC(b.static)},
		{name: idleDnsmasq, start: dnsmasq},
	}
	if b.beside != "" {
		contenders = append(contenders, contender{name: b.beside, start: serveNIC(b.beside)})
	}
	for _, c := range contenders {
		s, err := c.run(ctx)
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	questions, err := newQuestions()
	if err != nil {
		return err
	}
	for _, q := range questions {
		results := make([]*idleResult, len(all))
		for i, s := range all {
			results[i] = &idleResult{name: s.name, protocol: q.protocol}
		}
		for round := range b.exchanges + warmUp {
			for i := range all {
				i = (i + round) % len(all) // nobody is always first
				if err := ctx.Err(); err != nil {
					return err
				}
				took, err := all[i].client.ask(q)
				switch {
				case errors.Is(err, errTimeout):
					results[i].lost++
				case err != nil:
					return fmt.Errorf("%s by %s: %w", all[i].name, q.protocol, err)
				case round >= warmUp:
					results[i].took = append(results[i].took, took)
				}
			}
		}
		r.idle = append(r.idle, results...)
	}
	return nil
}

// warmUp is how many exchanges are not counted: a guest boots beside a server that has
// served before, or has checked itself.
const warmUp = 3

// Bounds of a pause.
const leastPause, mostPause = 20 * time.Millisecond, 50 * time.Millisecond

func pause() { time.Sleep(leastPause + rand.N(mostPause-leastPause)) }

// serveNIC is the program as it is shipped: with its budget, its log and the lease that
// it keeps.
func serveNIC(binary string) func(dir string) ([]string, error) {
	return func(dir string) ([]string, error) { return serveArgs(binary, dir) }
}

func serveArgs(binary, dir string) ([]string, error) {
	type object = map[string]any
	nics := []object{{
		"interface": "eth0", "tap": tapName, "tapMAC": "02:00:00:00:00:01", "mac": guestMAC, "mtu": 1450, "queues": 1, "addressed": true,
		"ipv4": object{
			"address": guestIP + "/24", "addresses": []string{guestIP + "/24"}, "server": serverIP, "gateway": serverIP,
			"routes": []object{{"destination": "10.244.0.0/16", "gateway": serverIP}, {"destination": "0.0.0.0/0", "gateway": serverIP}},
		},
		"ipv6": object{
			"address":  guestIP6 + "/64",
			"router":   object{"linkLocal": "fe80::1", "mac": "02:00:00:00:00:01", "gateway": "fe80::1"},
			"prefixes": []string{"fd00:10:244:1::/64"}, "routes": []object{{"destination": "::/0"}},
		},
	}}
	text, err := json.Marshal(object{"interfaces": nics})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nics.json")
	args := []string{binary, "serve", "--nics", file, "--state-dir", filepath.Join(dir, "state"), "--hostname", "vm-a", "--dns", dnsIP, "--dns", serverIP6}
	for _, domain := range searchList {
		args = append(args, "--search", domain)
	}
	return args, os.WriteFile(file, text, 0o600)
}

func (r *result) idleMarkdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n| One exchange after a pause, %d times | | p50 µs | p90 µs | p99 µs | lost |\n|---|---|--:|--:|--:|--:|\n", r.bench.exchanges)
	for _, s := range r.idle {
		fmt.Fprintf(b, "| %s | %s | %.0f | %.0f | %.0f | %d |\n", s.protocol, s.name,
			micros(quantile(s.took, 0.5)), micros(quantile(s.took, 0.9)), micros(quantile(s.took, 0.99)), s.lost)
	}
}

// idleAims are those of the program's exchanges after a pause.
func (r *result) idleAims() (aims []aim) {
	p50 := func(name, protocol string) float64 {
		i := slices.IndexFunc(r.idle, func(s *idleResult) bool { return s.name == name && s.protocol == protocol })
		if i < 0 {
			return 0
		}
		return micros(quantile(r.idle[i].took, 0.5))
	}
	for _, protocol := range []string{overIPv4, overIPv6} {
		ours := p50(idleOurs, protocol)
		aims = append(aims,
			aim{what: protocol + " after a pause, p50, of dnsmasq's", limit: 0.9, seen: ours / p50(idleDnsmasq, protocol)},
			aim{what: protocol + " after a pause, p50, of the canned replies'", limit: 1.25, seen: ours / p50(idleCanned, protocol)})
	}
	return aims
}
