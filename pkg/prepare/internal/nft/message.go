package nft

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// message is what the kernel says of a table or of something in one, when somebody asks
// and when it changes (enum nft_table_attributes and others,
// linux/netfilter/nf_tables.h).
type message struct {
	kind   int // unix.NFT_MSG_NEWTABLE, …
	family byte
	table  string
	flags  uint32 // the table's
	chain  string
	hook   hook
	rule   rule
	after  uint64 // handle of the rule before; 0: the kernel names none
	last   bool   // the rule is appended
	set    string
	definition
	elements []element
}

// parse reads a message; not ok if it is about something else, or broken.
func parse(raw nl.Message) (m message, ok bool) {
	if raw.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(raw.Data) < sizeofHeader {
		return m, false
	}
	m = message{kind: int(raw.Type) & 0xff, family: raw.Data[0], last: isAppended(raw.Flags)}
	attrs := nl.Attributes(raw.Data[sizeofHeader:])
	m.table = attrs.Text(unix.NFTA_TABLE_NAME) // as NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, …
	switch m.kind {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		m.flags = number(attrs.Get(unix.NFTA_TABLE_FLAGS))
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		m.parseChain(attrs)
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		m.parseRule(attrs)
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
		m.set, m.definition = attrs.Text(unix.NFTA_SET_NAME), parseSet(attrs)
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		m.set = attrs.Text(unix.NFTA_SET_ELEM_LIST_SET)
		for _, e := range attrs.In(unix.NFTA_SET_ELEM_LIST_ELEMENTS).All() {
			m.elements = append(m.elements, parseElement(e))
		}
	}
	return m, true
}

// number is a big-endian one; 0: there is none.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func number64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// isAppended tells whether a rule is behind all others. Old kernels, 5.10 among them,
// don't tell of a new one where it is, nor that somebody created it: it is taken as
// appended, as ours are (nf_tables_rule_notify, net/netfilter/nf_tables_api.c).
func isAppended(flags uint16) bool {
	return flags&unix.NLM_F_APPEND != 0 || flags&unix.NLM_F_CREATE == 0
}

// sizeofHeader is the length of struct nfgenmsg (linux/netfilter/nfnetlink.h), and
// header is one.
const sizeofHeader = 4

func header(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

func (m *message) parseChain(attrs nl.Attributes) {
	m.chain = attrs.Text(unix.NFTA_CHAIN_NAME)
	at := attrs.In(unix.NFTA_CHAIN_HOOK)
	m.hook = hook{
		kind: attrs.Text(unix.NFTA_CHAIN_TYPE), policy: number(attrs.Get(unix.NFTA_CHAIN_POLICY)),
		number: number(at.Get(unix.NFTA_HOOK_HOOKNUM)), priority: int32(number(at.Get(unix.NFTA_HOOK_PRIORITY))), device: at.Text(unix.NFTA_HOOK_DEV),
	}
}

func (m *message) parseRule(attrs nl.Attributes) {
	m.chain, m.after = attrs.Text(unix.NFTA_RULE_CHAIN), number64(attrs.Get(unix.NFTA_RULE_POSITION))
	m.rule.handle, m.rule.comment = number64(attrs.Get(unix.NFTA_RULE_HANDLE)), comment(attrs.Get(unix.NFTA_RULE_USERDATA))
	for _, e := range attrs.In(unix.NFTA_RULE_EXPRESSIONS).All() {
		e := nl.Attributes(e)
		m.rule.parseExpr(e.Text(unix.NFTA_EXPR_NAME), e.In(unix.NFTA_EXPR_DATA))
	}
}

// comment finds a rule's comment in what somebody has attached to it, which the kernel
// does not look at: pairs of a type and a text, each behind its length.
func comment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		end := 2 + int(b[1])
		if userdata.Type(b[0]) == userdata.TypeComment {
			return string(bytes.TrimSuffix(b[2:end], []byte{0}))
		}
		b = b[end:]
	}
	return ""
}

func parseSet(attrs nl.Attributes) definition {
	return definition{
		flags: number(attrs.Get(unix.NFTA_SET_FLAGS)), keyType: number(attrs.Get(unix.NFTA_SET_KEY_TYPE)), keyLength: number(attrs.Get(unix.NFTA_SET_KEY_LEN)),
		size: number(attrs.In(unix.NFTA_SET_DESC).Get(unix.NFTA_SET_DESC_SIZE)), timeout: number64(attrs.Get(unix.NFTA_SET_TIMEOUT)),
	}
}

func parseElement(attrs nl.Attributes) element {
	return element{
		key: hex.EncodeToString(attrs.In(unix.NFTA_SET_ELEM_KEY).Get(unix.NFTA_DATA_VALUE)),
		end: number(attrs.Get(unix.NFTA_SET_ELEM_FLAGS))&unix.NFT_SET_ELEM_INTERVAL_END != 0,
	}
}

// parseExpr reads an expression, if it counts, compares for equality or ends the
// rule. What is forwarded is accepted.
func (r *rule) parseExpr(name string, data nl.Attributes) {
	switch name {
	case "counter":
		r.packets, r.bytes = number64(data.Get(unix.NFTA_COUNTER_PACKETS)), number64(data.Get(unix.NFTA_COUNTER_BYTES))
	case "cmp":
		if number(data.Get(unix.NFTA_CMP_OP)) == unix.NFT_CMP_EQ {
			r.values = append(r.values, slices.Clone(data.In(unix.NFTA_CMP_DATA).Get(unix.NFTA_DATA_VALUE)))
		}
	case "fwd":
		r.accepts = true
	case "immediate":
		verdict := data.In(unix.NFTA_IMMEDIATE_DATA).In(unix.NFTA_DATA_VERDICT)
		if verdict == nil { // it loads a value
			return
		}
		code := expr.VerdictKind(int32(number(verdict.Get(unix.NFTA_VERDICT_CODE))))
		r.accepts = code == expr.VerdictAccept
		if code == expr.VerdictGoto {
			r.leads = verdict.Text(unix.NFTA_VERDICT_CHAIN)
		}
	}
}
