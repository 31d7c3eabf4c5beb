package nft

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Rule is a rule: what it matches, then what it does.
type Rule []Part

// Part is a match or a statement of a rule, for nft(8) and for the kernel.
type Part struct {
	text  func() string // plan prints it; prepare makes thousands of parts that nobody reads
	exprs []expr.Any
	label any    // what its counter counts; nil: nothing that anybody asks for
	link  string // by which exprs, which find its index in register 1, have frames leave
}

// says is the text of a part.
func says(text string) func() string { return func() string { return text } }

// onEthernetAt is before which part the rule asks whether the link is Ethernet; -1: it
// does not. Where a link may be of another kind, that comes before an Ethernet header is
// looked at; nft(8) adds it if nobody says it.
func (r Rule) onEthernetAt(f Family) int {
	if f.Ethernet {
		return -1
	}
	return slices.IndexFunc(r, Part.isEthernet)
}

func (p Part) isEthernet() bool {
	return slices.ContainsFunc(p.exprs, func(e expr.Any) bool {
		at, is := e.(*expr.Payload)
		return is && at.Base == expr.PayloadBaseLLHeader
	})
}

// text is the rule in nft(8)'s language.
func (r Rule) text(f Family) string {
	var words []string
	asks := r.onEthernetAt(f)
	for i, p := range r {
		if i == asks {
			words = append(words, onEthernet.text())
		}
		words = append(words, p.text())
	}
	return strings.Join(words, " ")
}

// exprs are those that nft(8) makes of the text, apart from what reuse saves. index tells the index of a link.
func (r Rule) exprs(f Family, index func(link string) int) []expr.Any {
	out := make([]expr.Any, 0, 2*len(r)+2) // all that most rules have
	asks := r.onEthernetAt(f)
	var load *expr.Payload // the last one that is only compared for equality, and what it is compared with
	var value *expr.Cmp
	at := 0 // where these are
	for i, p := range r {
		if i == asks {
			out = append(out, onEthernet.exprs...)
		}
		l, v := p.equality()
		if l != nil && load != nil && mergeable(*load, *l) {
			load = &expr.Payload{DestRegister: l.DestRegister, Base: load.Base, Offset: load.Offset, Len: load.Len + l.Len}
			value = &expr.Cmp{Op: v.Op, Register: v.Register, Data: slices.Concat(value.Data, v.Data)}
			out[at], out[at+1] = load, value
			continue
		}
		if l != nil {
			load, value, at = l, v, len(out)
		}
		if p.link != "" {
			out = append(out, &expr.Immediate{Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, uint32(index(p.link)))})
		}
		out = append(out, p.exprs...)
	}
	return reuse(out)
}

// equality returns what loads a part of a frame and what compares it for equality; nil if
// the part does anything else.
func (p Part) equality() (*expr.Payload, *expr.Cmp) {
	if len(p.exprs) != 2 {
		return nil, nil
	}
	load, isLoad := p.exprs[0].(*expr.Payload)
	value, isCompared := p.exprs[1].(*expr.Cmp)
	if !isLoad || !isCompared || value.Op != expr.CmpOpEq {
		return nil, nil
	}
	return load, value
}

// mergeable tells whether nft(8) compares both at once: they are neighbors, fit a
// register, and the kernel would not compare each faster by itself
// (payload_can_merge, src/payload.c). Debian 12's merges inequalities too, which
// then mean something else: no rule compares two neighbors for that.
func mergeable(a, b expr.Payload) bool {
	const fast, register = 4, 16
	total := a.Len + b.Len
	if a.Base != b.Base || a.Offset+a.Len != b.Offset || total > register {
		return false
	}
	return total <= fast && a.Base != expr.PayloadBaseLLHeader || a.Len > fast || b.Len > fast
}

// label is what the rule counts; nil: nothing that anybody asks for.
func (r Rule) label() any {
	for _, p := range r {
		if p.label != nil {
			return p.label
		}
	}
	return nil
}

// rule adds a rule's expressions, and returns a digest of them: what the kernel keeps as
// the rule's comment. So nobody needs to tell from the kernel's own words, which it may
// put otherwise, whether the rule is the planned one.
func (a *attributes) rule(r Rule, f Family, index func(link string) int) (digest string, err error) {
	from := len(*a)
	a.nested(unix.NFTA_RULE_EXPRESSIONS, func() {
		for _, e := range r.exprs(f, index) {
			a.nested(unix.NFTA_LIST_ELEM, func() { err = cmp.Or(err, a.expression(f, e)) })
		}
	})
	sum := sha256.Sum256((*a)[from:])
	return hex.EncodeToString(sum[:8]), err
}

// forward has a frame leave by the link whose index is in register 1.
// google/nftables has no such expression.
type forward struct{ expr.Any }
