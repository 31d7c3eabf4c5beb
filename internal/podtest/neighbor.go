package podtest

import (
	"net/netip"
	"strings"
	"testing"
)

// NewNeighbor makes another pod of the same shape on the same node for a test,
// with the next address. Its Node and Outside are p's.
func (p *Pod) NewNeighbor(t testing.TB) *Pod {
	t.Helper()
	l, ok := p.Shape.layout()
	if !ok {
		t.Fatalf("make neighbour: no shape %q", p.Shape)
	}
	neighbor := &Pod{Shape: p.Shape, Node: p.Node, NS: New(t), Outside: p.Outside}
	if err := neighbor.plug(t.Context(), l.next()); err != nil {
		t.Fatalf("make neighbour of %s pod: %v", p.Shape, err)
	}
	return neighbor
}

// next is the layout of a second pod on the node.
func (l layout) next() layout {
	n := l
	n.host = nil
	n.link, n.mac = l.link[:len(l.link)-1]+"0", l.mac[:len(l.mac)-2]+"7e"
	n.address, n.v6 = nextAddress(l.address), nextAddress(l.v6)
	names := map[string]string{
		l.link:                    n.link,
		l.address.Addr().String(): n.address.Addr().String(),
		l.v6.Addr().String():      n.v6.Addr().String(),
	}
	n.node, n.pod = renamed(l.node, names), renamed(l.pod, names)
	n.sysctls = map[string]string{}
	for key, value := range l.sysctls {
		n.sysctls[strings.ReplaceAll(key, l.link, n.link)] = value
	}
	return n
}

func nextAddress(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr().Next(), p.Bits())
}

// renamed replaces words, also in front of a mask.
func renamed(lines []string, names map[string]string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		words := strings.Fields(line)
		for j, word := range words {
			name, mask, hasMask := strings.Cut(word, "/")
			if other, ok := names[name]; ok && hasMask {
				words[j] = other + "/" + mask
			} else if ok {
				words[j] = other
			}
		}
		out[i] = strings.Join(words, " ")
	}
	return out
}
