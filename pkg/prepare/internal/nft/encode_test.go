package nft

import (
	"bytes"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What is encoded here is what the library makes of it.
func TestExpressionIsTheLibrarys(t *testing.T) {
	t.Parallel()
	for _, e := range []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4,
			CsumType: expr.CsumTypeInet, CsumOffset: 10, CsumFlags: unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR,
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{1, 2, 3}},
		&expr.Counter{Packets: 1, Bytes: 64},
		&expr.Verdict{Kind: expr.VerdictDrop},
		&expr.Verdict{Kind: expr.VerdictGoto, Chain: "next"},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: "ports"},
	} {
		want, err := expr.Marshal(byte(Netdev.Number), e)
		if err != nil {
			t.Fatal(err)
		}
		var got attributes
		if err := got.expression(Netdev, e); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%T%+v: %v:\n%x, want\n%x", e, e, err, []byte(got), want)
		}
	}
}
