package prepare

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// GuardCounter is how often a rule of the port guard matched.
type GuardCounter struct {
	Chain   string `json:"chain"`
	Rule    string `json:"rule"` // as nft(8) writes it
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// GuardCounters reads the counters of the plan's port guard; none if the plan
// has none. The kernel wants NET_ADMIN for that; without, the error wraps
// [unix.EPERM].
func (p Plan) GuardCounters() ([]GuardCounter, error) {
	if !p.Guard {
		return nil, nil
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	g := p.guard()
	t := &nftables.Table{Family: families[g.family], Name: g.name}
	var counters []GuardCounter
	for _, c := range g.chains {
		there, err := conn.GetRules(t, &nftables.Chain{Name: c.name, Table: t})
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read guard of %s: %w", p.Interface.Name, err)
		}
		if len(there) != len(c.rules) {
			return nil, fmt.Errorf("read guard of %s: chain %s has %d rules, not the %d planned: run prepare again",
				p.Interface.Name, c.name, len(there), len(c.rules))
		}
		for i, r := range there {
			for _, e := range r.Exprs {
				if n, ok := e.(*expr.Counter); ok {
					counters = append(counters, GuardCounter{c.name, c.rules[i].text, n.Packets, n.Bytes})
				}
			}
		}
	}
	return counters, nil
}
