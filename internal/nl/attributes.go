package nl

import (
	"encoding/binary"
	"iter"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes are the attributes behind the header of a netlink message, or those
// within an attribute (struct nlattr, linux/netlink.h).
type Attributes []byte

// All are the types and values of the attributes, in order. What is not whole, which
// the kernel never sends, ends them.
func (a Attributes) All() iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for b := a; len(b) >= unix.SizeofRtAttr; {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) ||
				!yield(binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// Get returns the value of the first attribute of a type; nil: there is none.
func (a Attributes) Get(attr uint16) []byte {
	for t, value := range a.All() {
		if t == attr {
			return value
		}
	}
	return nil
}

// In returns the attributes within the first one of a type.
func (a Attributes) In(attr uint16) Attributes { return a.Get(attr) }

// Text returns the value of an attribute of text; empty: there is none.
func (a Attributes) Text(attr uint16) string { return unix.ByteSliceToString(a.Get(attr)) }

// Int returns the value of an attribute with a number of 1, 2 or 4 bytes; absent if
// there is none.
func (a Attributes) Int(attr uint16, absent int) int {
	switch value := a.Get(attr); len(value) {
	case 1:
		return int(value[0])
	case 2:
		return int(binary.NativeEndian.Uint16(value))
	case 4:
		return int(binary.NativeEndian.Uint32(value))
	}
	return absent
}

// NextHop is one next hop of a multipath route: struct rtnexthop
// (linux/rtnetlink.h) and attributes.
type NextHop []byte

// Index is the link that it leaves by.
func (n NextHop) Index() int { return int(binary.NativeEndian.Uint32(n[4:])) }

// Attributes are its gateway and what else it has.
func (n NextHop) Attributes() Attributes { return Attributes(n[unix.SizeofRtNexthop:]) }

// NextHops splits the value of RTA_MULTIPATH.
func NextHops(b []byte) (hops []NextHop) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			break
		}
		hops = append(hops, NextHop(b[:size]))
		b = b[min(len(b), (size+3)&^3):]
	}
	return hops
}
