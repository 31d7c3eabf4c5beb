package nft

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
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
func parse(raw netlink.Message) (m message, ok bool) {
	if raw.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(raw.Data) < sizeofHeader {
		return m, false
	}
	m = message{kind: int(raw.Header.Type) & 0xff, family: raw.Data[0], last: isAppended(raw.Header.Flags)}
	attrs, err := netlink.NewAttributeDecoder(raw.Data[sizeofHeader:])
	if err != nil {
		return m, false
	}
	attrs.ByteOrder = binary.BigEndian
	for attrs.Next() {
		switch {
		case attrs.Type() == unix.NFTA_TABLE_NAME: // as NFTA_CHAIN_TABLE and NFTA_RULE_TABLE
			m.table = attrs.String()
		case m.kind == unix.NFT_MSG_NEWTABLE || m.kind == unix.NFT_MSG_DELTABLE:
			if attrs.Type() == unix.NFTA_TABLE_FLAGS {
				m.flags = attrs.Uint32()
			}
		case m.kind == unix.NFT_MSG_NEWCHAIN || m.kind == unix.NFT_MSG_DELCHAIN:
			m.parseChain(attrs)
		case m.kind == unix.NFT_MSG_NEWRULE || m.kind == unix.NFT_MSG_DELRULE:
			m.parseRule(attrs)
		case attrs.Type() == unix.NFTA_SET_NAME: // as NFTA_SET_ELEM_LIST_SET
			m.set = attrs.String()
		case m.kind == unix.NFT_MSG_NEWSET || m.kind == unix.NFT_MSG_DELSET:
			m.parseSet(attrs)
		case m.kind == unix.NFT_MSG_NEWSETELEM || m.kind == unix.NFT_MSG_DELSETELEM:
			if attrs.Type() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				each(attrs, func(a *netlink.AttributeDecoder) { m.elements = append(m.elements, parseElement(a)) })
			}
		}
	}
	return m, attrs.Err() == nil
}

// isAppended tells whether a rule is behind all others. Old kernels, 5.10 among them,
// don't tell of a new one where it is, nor that somebody created it: it is taken as
// appended, as ours are (nf_tables_rule_notify, net/netfilter/nf_tables_api.c).
func isAppended(flags netlink.HeaderFlags) bool {
	return flags&netlink.Append != 0 || flags&netlink.Create == 0
}

// sizeofHeader is the length of struct nfgenmsg (linux/netfilter/nfnetlink.h), and
// header is one.
const sizeofHeader = 4

func header(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

func (m *message) parseChain(attrs *netlink.AttributeDecoder) {
	switch attrs.Type() {
	case unix.NFTA_CHAIN_NAME:
		m.chain = attrs.String()
	case unix.NFTA_CHAIN_TYPE:
		m.hook.kind = attrs.String()
	case unix.NFTA_CHAIN_POLICY:
		m.hook.policy = attrs.Uint32()
	case unix.NFTA_CHAIN_HOOK:
		each(attrs, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_HOOK_HOOKNUM:
				m.hook.number = a.Uint32()
			case unix.NFTA_HOOK_PRIORITY:
				m.hook.priority = int32(a.Uint32())
			case unix.NFTA_HOOK_DEV:
				m.hook.device = a.String()
			}
		})
	}
}

func (m *message) parseRule(attrs *netlink.AttributeDecoder) {
	switch attrs.Type() {
	case unix.NFTA_RULE_CHAIN:
		m.chain = attrs.String()
	case unix.NFTA_RULE_HANDLE:
		m.rule.handle = attrs.Uint64()
	case unix.NFTA_RULE_POSITION:
		m.after = attrs.Uint64()
	case unix.NFTA_RULE_USERDATA:
		m.rule.comment = comment(attrs.Bytes())
	case unix.NFTA_RULE_EXPRESSIONS:
		each(attrs, func(list *netlink.AttributeDecoder) {
			name := ""
			each(list, func(a *netlink.AttributeDecoder) {
				switch a.Type() {
				case unix.NFTA_EXPR_NAME:
					name = a.String()
				case unix.NFTA_EXPR_DATA:
					m.rule.parseExpr(name, m.family, a.Bytes())
				}
			})
		})
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

func (d *definition) parseSet(attrs *netlink.AttributeDecoder) {
	switch attrs.Type() {
	case unix.NFTA_SET_FLAGS:
		d.flags = attrs.Uint32()
	case unix.NFTA_SET_KEY_TYPE:
		d.keyType = attrs.Uint32()
	case unix.NFTA_SET_KEY_LEN:
		d.keyLength = attrs.Uint32()
	case unix.NFTA_SET_TIMEOUT:
		d.timeout = attrs.Uint64()
	case unix.NFTA_SET_DESC:
		each(attrs, func(a *netlink.AttributeDecoder) {
			if a.Type() == unix.NFTA_SET_DESC_SIZE {
				d.size = a.Uint32()
			}
		})
	}
}

func parseElement(list *netlink.AttributeDecoder) (e element) {
	each(list, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_SET_ELEM_FLAGS:
			e.end = a.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_KEY:
			each(a, func(a *netlink.AttributeDecoder) { e.key = hex.EncodeToString(a.Bytes()) })
		}
	})
	return e
}

// parseExpr reads an expression, if it counts, compares for equality or ends the
// rule. What is forwarded is accepted.
func (r *rule) parseExpr(name string, family byte, b []byte) {
	var count expr.Counter
	var cmp expr.Cmp
	var verdict expr.Verdict
	switch name {
	case "counter":
		if expr.Unmarshal(family, b, &count) == nil {
			r.packets, r.bytes = count.Packets, count.Bytes
		}
	case "cmp":
		if expr.Unmarshal(family, b, &cmp) == nil && cmp.Op == expr.CmpOpEq {
			r.values = append(r.values, slices.Clone(cmp.Data))
		}
	case "fwd":
		r.accepts = true
	case "immediate":
		if expr.Unmarshal(family, b, &verdict) == nil {
			r.accepts = verdict.Kind == expr.VerdictAccept
			if verdict.Kind == expr.VerdictGoto {
				r.leads = verdict.Chain
			}
		}
	}
}

// each goes through the attributes in another.
func each(attrs *netlink.AttributeDecoder, do func(*netlink.AttributeDecoder)) {
	attrs.Nested(func(in *netlink.AttributeDecoder) error {
		in.ByteOrder = binary.BigEndian
		for in.Next() {
			do(in)
		}
		return nil
	})
}
