package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Field is a part of a frame, or something else that the kernel knows of it, which
// has a V. Values are what encoding/binary makes of them, but for addresses, and
// strings, which are names of links.
type Field[V any] struct {
	name   string // nft(8)'s; empty: it names the place
	load   func(length int) expr.Any
	mask   []byte // of a field that is not whole bytes, or of which a part is compared
	equals string // nft(8)'s operator, where it needs one
	summed bool   // checksums have to follow it: of what IP carries, and of IPv4
}

// Is matches the value.
func (f Field[V]) Is(v V) Part { return f.compare(f.equals, expr.CmpOpEq, v) }

// Not matches any other value.
func (f Field[V]) Not(v V) Part { return f.compare("!= ", expr.CmpOpNeq, v) }

// AtLeast matches the value and what is more. Of zero it matches each frame that has
// the field.
func (f Field[V]) AtLeast(v V) Part { return f.compare(">= ", expr.CmpOpGte, v) }

func (f Field[V]) compare(operator string, op expr.CmpOp, v V) Part {
	value := bytesOf(v)
	exprs := []expr.Any{f.load(len(value)), &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: value}}
	if n := len(f.mask); n > 0 {
		exprs = slices.Insert(exprs, 1, expr.Any(bitwise(f.mask, make([]byte, n))))
	}
	return Part{text: func() string { return f.at(len(value)) + " " + operator + textOf(v) }, exprs: exprs}
}

// In matches numbers of a range.
func (f Field[V]) In(from, to V) Part {
	first, last := bytesOf(from), bytesOf(to)
	return Part{text: func() string { return fmt.Sprintf("%s %d-%d", f.name, any(from), any(to)) }, exprs: []expr.Any{
		f.load(len(first)),
		&expr.Cmp{Op: expr.CmpOpGte, Register: unix.NFT_REG_1, Data: first},
		&expr.Cmp{Op: expr.CmpOpLte, Register: unix.NFT_REG_1, Data: last},
	}}
}

// NotIn matches numbers outside of a range.
func (f Field[V]) NotIn(from, to V) Part {
	first, last := bytesOf(from), bytesOf(to)
	return Part{text: func() string { return fmt.Sprintf("%s != %d-%d", f.name, any(from), any(to)) }, exprs: []expr.Any{
		f.load(len(first)),
		&expr.Range{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, FromData: first, ToData: last},
	}}
}

// Masked is what a mask leaves of the field.
func (f Field[V]) Masked(mask V) Field[V] {
	text := textOf(mask)
	if _, named := any(mask).(fmt.Stringer); !named {
		text = fmt.Sprintf("%#x", any(mask))
	}
	f.name, f.mask, f.equals = f.name+" & "+text, bytesOf(mask), "== "
	return f
}

// Within matches addresses of a network whose length is whole bytes.
func Within(f Field[netip.Addr], network netip.Prefix) Part {
	value := network.Masked().Addr().AsSlice()[:network.Bits()/8]
	return Part{text: func() string { return f.name + " " + network.String() }, exprs: []expr.Any{
		f.load(len(value)), &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: value},
	}}
}

// Set writes the value to the frame. Of addresses of IP, and of what is IP's, checksums
// follow, but for those of ICMP errors' inner packets; no others do.
func (f Field[V]) Set(v V) Part {
	value := bytesOf(v)
	return Part{text: func() string { return f.at(len(value)) + " set " + textOf(v) }, exprs: []expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_1, Data: value}, f.write(len(value)),
	}}
}

// SetSummed writes a byte of ICMP or ICMPv6, and keeps its checksum right, which is of 16-bit
// words.
func SetSummed(f Field[uint8], v uint8) Part {
	load := f.load(2).(*expr.Payload)
	odd := load.Offset % 2
	load.Offset -= odd
	keep, set := []byte{0xff, 0xff}, []byte{0, 0}
	keep[odd], set[odd] = 0, v
	write := asWrite(load)
	write.CsumType, write.CsumOffset = expr.CsumTypeInet, 2
	return Part{text: func() string { return fmt.Sprint(f.name, " set ", v) }, exprs: []expr.Any{load, bitwise(keep, set), write}}
}

// SetFrom writes what is elsewhere in the frame, so many bytes of it.
func (f Field[V]) SetFrom(other Field[V], length int) Part {
	return Part{
		text:  func() string { return f.at(length) + " set " + other.at(length) },
		exprs: []expr.Any{other.load(length), f.write(length)},
	}
}

// write writes register 1 to the field.
func (f Field[V]) write(length int) expr.Any {
	load := f.load(length)
	if m, is := load.(*expr.Meta); is {
		m.SourceRegister = true
		return m
	}
	p := asWrite(load)
	if f.summed {
		p.CsumFlags = unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR
		if length == net.IPv4len {
			p.CsumType, p.CsumOffset = expr.CsumTypeInet, 10 // RFC 791's header checksum
		}
	}
	return p
}

func asWrite(load expr.Any) *expr.Payload {
	p := *load.(*expr.Payload)
	p.OperationType, p.SourceRegister, p.DestRegister = expr.PayloadWrite, unix.NFT_REG_1, 0
	return &p
}

// into loads the field into a register.
func (f Field[V]) into(register uint32, length int) expr.Any {
	field, _ := loads(f.load(length))
	return loadedTo(field, register)
}

// at is the field's name, or its place.
func (f Field[V]) at(length int) string {
	if f.name != "" {
		return f.name
	}
	p := f.load(length).(*expr.Payload)
	bases := map[expr.PayloadBase]string{expr.PayloadBaseLLHeader: "ll", expr.PayloadBaseNetworkHeader: "nh", expr.PayloadBaseTransportHeader: "th"}
	return fmt.Sprintf("@%s,%d,%d", bases[p.Base], 8*p.Offset, 8*p.Len)
}

func bytesOf(v any) []byte {
	switch v := v.(type) {
	case []byte:
		return v
	case string:
		return append([]byte(v), make([]byte, unix.IFNAMSIZ-len(v))...)
	case netip.Addr:
		return v.AsSlice()
	case Mark:
		return binary.NativeEndian.AppendUint32(nil, uint32(v))
	}
	b, err := binary.Append(nil, binary.BigEndian, v)
	if err != nil { // no field has such values
		return nil
	}
	return b
}

func textOf(v any) string {
	if b, is := v.([]byte); is {
		return fmt.Sprintf("%#x", b)
	}
	return fmt.Sprint(v)
}

func bitwise(keep, set []byte) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: uint32(len(keep)), Mask: keep, Xor: set}
}
