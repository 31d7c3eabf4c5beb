package nft

import (
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
	text  string
	exprs []expr.Any
	label any    // what its counter counts; nil: nothing that anybody asks for
	link  string // by which the frame leaves in the end; empty: exprs are all
}

// in is the rule as a family has it. Where a link may be of another kind, nft(8)
// asks whether it is Ethernet before it looks at an Ethernet header.
func (r Rule) in(f Family) Rule {
	if !f.Ethernet && slices.ContainsFunc(r, Part.isEthernet) {
		return append(Rule{onEthernet}, r...)
	}
	return r
}

func (p Part) isEthernet() bool {
	if len(p.exprs) == 0 {
		return false
	}
	at, is := p.exprs[0].(*expr.Payload)
	return is && at.Base == expr.PayloadBaseLLHeader
}

// text is the rule in nft(8)'s language.
func (r Rule) text(f Family) string {
	var words []string
	for _, p := range r.in(f) {
		words = append(words, p.text)
	}
	return strings.Join(words, " ")
}

// exprs are those that nft(8) makes of the text. index is that of the link by which
// the frame leaves.
func (r Rule) exprs(f Family, index int) (out []expr.Any) {
	var load *expr.Payload // the last one that is only compared for equality
	var value *expr.Cmp
	for _, p := range r.in(f) {
		l, v := p.equality()
		switch {
		case p.link != "":
			out = append(out,
				&expr.Immediate{Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, uint32(index))},
				&expr.Dup{RegDev: unix.NFT_REG_1, IsRegDevSet: true},
				&expr.Verdict{Kind: expr.VerdictDrop})
		case l == nil:
			out = append(out, p.exprs...)
		case load != nil && mergeable(*load, *l):
			load.Len += l.Len
			value.Data = slices.Concat(value.Data, v.Data)
		default:
			load, value = l, v
			out = append(out, l, v)
		}
	}
	return out
}

// equality returns copies of what loads a part of a frame and of what compares it
// for equality; nil if the part does anything else.
func (p Part) equality() (*expr.Payload, *expr.Cmp) {
	if len(p.exprs) != 2 {
		return nil, nil
	}
	load, isLoad := p.exprs[0].(*expr.Payload)
	value, isCompared := p.exprs[1].(*expr.Cmp)
	if !isLoad || !isCompared || value.Op != expr.CmpOpEq {
		return nil, nil
	}
	l, v := *load, *value
	return &l, &v
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

// last is the rule's last part, which has its label and its link.
func (r Rule) last() Part { return r[len(r)-1] }

// digest is what the kernel keeps as a rule's comment: nobody needs to tell from
// the kernel's own words, which it may put otherwise, whether the rule is the
// planned one. exprs are the rule's.
func (r Rule) digest(f Family, exprs []expr.Any) string {
	sum := sha256.New()
	sum.Write([]byte(r.text(f)))
	for _, e := range exprs {
		b, err := expr.Marshal(byte(f.Number), e)
		if err != nil { // the kernel is never asked for such a rule
			return err.Error()
		}
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}
