package nft

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Rule is a rule: what it matches, then what it does.
type Rule []Part

// Part is a match or a statement of a rule, for nft(8) and for the kernel.
type Part struct {
	text  string
	exprs []expr.Any
	label any    // what its counter counts; nil: nothing that anybody asks for
	link  string // by which exprs, which find its index in register 1, have frames leave
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
	return slices.ContainsFunc(p.exprs, func(e expr.Any) bool {
		at, is := e.(*expr.Payload)
		return is && at.Base == expr.PayloadBaseLLHeader
	})
}

// text is the rule in nft(8)'s language.
func (r Rule) text(f Family) string {
	var words []string
	for _, p := range r.in(f) {
		words = append(words, p.text)
	}
	return strings.Join(words, " ")
}

// exprs are those that nft(8) makes of the text. index tells the index of a link.
func (r Rule) exprs(f Family, index func(link string) int) (out []expr.Any) {
	var load *expr.Payload // the last one that is only compared for equality
	var value *expr.Cmp
	for _, p := range r.in(f) {
		l, v := p.equality()
		switch {
		case p.link != "":
			out = append(out, &expr.Immediate{Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, uint32(index(p.link)))})
			out = append(out, p.exprs...)
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

// label is what the rule counts; nil: nothing that anybody asks for.
func (r Rule) label() any {
	for _, p := range r {
		if p.label != nil {
			return p.label
		}
	}
	return nil
}

// digest is what the kernel keeps as a rule's comment: nobody needs to tell from
// the kernel's own words, which it may put otherwise, whether the rule is the
// planned one. exprs are the rule's.
func (r Rule) digest(f Family, exprs []expr.Any) string {
	sum := sha256.New()
	sum.Write([]byte(r.text(f)))
	for _, e := range exprs {
		b, err := marshal(f, e)
		if err != nil { // the kernel is never asked for such a rule
			return err.Error()
		}
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// forward has a frame leave by the link whose index is in register 1.
// google/nftables has no such expression.
type forward struct{ expr.Any }

// marshal encodes an expression, those too that google/nftables can't.
func marshal(f Family, e expr.Any) ([]byte, error) {
	name, a := "", encoder()
	switch e := e.(type) {
	case forward:
		name = "fwd"
		a.Uint32(unix.NFTA_FWD_SREG_DEV, unix.NFT_REG_1)
	case *expr.Payload:
		if e.CsumFlags == 0 || e.CsumType != expr.CsumTypeNone {
			break
		}
		name = "payload" // whose flags it leaves out
		a.Uint32(unix.NFTA_PAYLOAD_SREG, e.SourceRegister)
		a.Uint32(unix.NFTA_PAYLOAD_BASE, uint32(e.Base))
		a.Uint32(unix.NFTA_PAYLOAD_OFFSET, e.Offset)
		a.Uint32(unix.NFTA_PAYLOAD_LEN, e.Len)
		a.Uint32(unix.NFTA_PAYLOAD_CSUM_FLAGS, e.CsumFlags)
	}
	if name == "" {
		return expr.Marshal(byte(f.Number), e)
	}
	data, err := a.Encode()
	if err != nil {
		return nil, err
	}
	a = encoder()
	a.String(unix.NFTA_EXPR_NAME, name)
	a.Bytes(netlink.Nested|unix.NFTA_EXPR_DATA, data)
	return a.Encode()
}
