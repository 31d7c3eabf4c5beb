package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// attributes are attributes of a message to nftables (struct nlattr, linux/netlink.h),
// whose numbers are big-endian. A table has thousands of them, each within others, so
// all of a batch are appended to the same bytes.
type attributes []byte

func (a *attributes) begin(kind int) (at int) {
	at = len(*a)
	*a = binary.NativeEndian.AppendUint16(append(*a, 0, 0), uint16(kind))
	return at
}

// end notes the length of the attribute that begins there, and pads it.
func (a *attributes) end(at int) {
	size := len(*a) - at
	binary.NativeEndian.PutUint16((*a)[at:], uint16(size))
	*a = append(*a, 0, 0, 0)[:at+(size+3)&^3]
}

func (a *attributes) bytes(kind int, value []byte) {
	at := a.begin(kind)
	*a = append(*a, value...)
	a.end(at)
}

func (a *attributes) text(kind int, value string) {
	at := a.begin(kind)
	*a = append(append(*a, value...), 0)
	a.end(at)
}

func (a *attributes) uint32(kind int, value uint32) {
	a.begin(kind)
	*a = binary.BigEndian.AppendUint32(*a, value)
	a.end(len(*a) - 8)
}

func (a *attributes) uint64(kind int, value uint64) {
	a.begin(kind)
	*a = binary.BigEndian.AppendUint64(*a, value)
	a.end(len(*a) - 12)
}

// nested has those that add adds in one of them.
func (a *attributes) nested(kind int, add func()) {
	at := a.begin(unix.NLA_F_NESTED | kind)
	add()
	a.end(at)
}

func (a *attributes) value(kind int, value []byte) {
	a.nested(kind, func() { a.bytes(unix.NFTA_DATA_VALUE, value) })
}

// expression adds an expression of a rule. google/nftables encodes each of its levels
// by itself, which takes ten times as long for the expressions that most rules are made of, and leaves
// the flags of one out.
func (a *attributes) expression(f Family, e expr.Any) error {
	data := func(name string, add func()) {
		a.text(unix.NFTA_EXPR_NAME, name)
		a.nested(unix.NFTA_EXPR_DATA, add)
	}
	switch e := e.(type) {
	case *expr.Payload:
		data("payload", func() { a.payload(e) })
	case *expr.Cmp:
		data("cmp", func() {
			a.uint32(unix.NFTA_CMP_SREG, e.Register)
			a.uint32(unix.NFTA_CMP_OP, uint32(e.Op))
			a.value(unix.NFTA_CMP_DATA, e.Data)
		})
	case *expr.Meta:
		register := unix.NFTA_META_DREG
		if e.SourceRegister {
			register = unix.NFTA_META_SREG
		}
		data("meta", func() {
			a.uint32(unix.NFTA_META_KEY, uint32(e.Key))
			a.uint32(register, e.Register)
		})
	case *expr.Counter:
		data("counter", func() {
			a.uint64(unix.NFTA_COUNTER_BYTES, e.Bytes)
			a.uint64(unix.NFTA_COUNTER_PACKETS, e.Packets)
		})
	case *expr.Verdict:
		data("immediate", func() { a.verdict(e) })
	case *expr.Bitwise:
		data("bitwise", func() {
			a.uint32(unix.NFTA_BITWISE_SREG, e.SourceRegister)
			a.uint32(unix.NFTA_BITWISE_DREG, e.DestRegister)
			a.uint32(unix.NFTA_BITWISE_LEN, e.Len)
			a.value(unix.NFTA_BITWISE_MASK, e.Mask)
			a.value(unix.NFTA_BITWISE_XOR, e.Xor)
		})
	case forward:
		data("fwd", func() { a.uint32(unix.NFTA_FWD_SREG_DEV, unix.NFT_REG_1) })
	default:
		b, err := expr.Marshal(byte(f.Number), e)
		*a = append(*a, b...)
		return err
	}
	return nil
}

func (a *attributes) payload(e *expr.Payload) {
	if e.OperationType == expr.PayloadWrite {
		a.uint32(unix.NFTA_PAYLOAD_SREG, e.SourceRegister)
	} else {
		a.uint32(unix.NFTA_PAYLOAD_DREG, e.DestRegister)
	}
	a.uint32(unix.NFTA_PAYLOAD_BASE, uint32(e.Base))
	a.uint32(unix.NFTA_PAYLOAD_OFFSET, e.Offset)
	a.uint32(unix.NFTA_PAYLOAD_LEN, e.Len)
	if e.CsumType != expr.CsumTypeNone {
		a.uint32(unix.NFTA_PAYLOAD_CSUM_TYPE, uint32(e.CsumType))
		a.uint32(unix.NFTA_PAYLOAD_CSUM_OFFSET, e.CsumOffset)
	}
	if e.CsumFlags != 0 {
		a.uint32(unix.NFTA_PAYLOAD_CSUM_FLAGS, e.CsumFlags)
	}
}

func (a *attributes) verdict(e *expr.Verdict) {
	a.uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	a.nested(unix.NFTA_IMMEDIATE_DATA, func() {
		a.nested(unix.NFTA_DATA_VERDICT, func() {
			a.uint32(unix.NFTA_VERDICT_CODE, uint32(e.Kind))
			if e.Chain != "" {
				a.text(unix.NFTA_VERDICT_CHAIN, e.Chain)
			}
		})
	})
}
