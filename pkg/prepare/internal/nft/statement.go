package nft

import (
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What a rule does with a frame. Count counts it, and tells nobody.
var (
	Accept = Part{text: says("accept"), exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
	Drop   = Part{text: says("drop"), exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
	Count  = Part{text: says("counter"), exprs: []expr.Any{&expr.Counter{}}}
)

// Judged counts a frame as label, which can be compared, and ends the rule.
func Judged(label any, verdict Part) Part {
	return Part{text: func() string { return "counter " + verdict.text() }, exprs: slices.Concat(Count.exprs, verdict.exprs), label: label}
}

// Jump lets a chain judge a frame, which comes back if that has no verdict.
func Jump(chain string) Part {
	return Part{text: says("jump " + chain), exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

// GoTo lets a chain judge a frame instead of the rules that follow.
func GoTo(chain string) Part {
	return Part{text: says("goto " + chain), exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

// CopyTo has a copy of a frame leave by a link. The frame itself goes on.
func CopyTo(link string) Part {
	return Part{text: says("dup to " + link), link: link, exprs: []expr.Any{copied}}
}

// SendTo has a frame leave by a link, instead of going on: a copy of it. ForwardTo is
// faster.
func SendTo(link string) Part {
	return Part{text: says("dup to " + link + " drop"), link: link, exprs: []expr.Any{copied, &expr.Verdict{Kind: expr.VerdictDrop}}}
}

var copied = &expr.Dup{RegDev: unix.NFT_REG_1, IsRegDevSet: true}

// ForwardTo has a frame leave by a link, instead of going on. It is for the family
// netdev alone.
func ForwardTo(link string) Part {
	return Part{text: says("fwd to " + link), link: link, exprs: []expr.Any{forward{}}}
}
