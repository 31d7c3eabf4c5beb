package nft

import "github.com/google/nftables/expr"

// What a rule does with a frame. Count counts it, and tells nobody.
var (
	Accept = Part{text: "accept", exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
	Drop   = Part{text: "drop", exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
	Count  = Part{text: "counter", exprs: []expr.Any{&expr.Counter{}}}
)

// Dropped drops a frame, and counts it as label, which can be compared.
func Dropped(label any) Part {
	return Part{text: "counter drop", exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}, label: label}
}

// Jump lets a chain judge a frame, which comes back if that has no verdict.
func Jump(chain string) Part {
	return Part{text: "jump " + chain, exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

// GoTo lets a chain judge a frame instead of the rules that follow.
func GoTo(chain string) Part {
	return Part{text: "goto " + chain, exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

// SendTo has a frame leave by a link, instead of going on. It ends a rule.
func SendTo(link string) Part { return Part{text: "dup to " + link + " drop", link: link} }
