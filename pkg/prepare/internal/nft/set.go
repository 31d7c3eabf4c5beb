package nft

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Set is a named set of a table: either of numbers that are planned, or of what
// [UpdateSet] puts there as frames pass. What is in the latter is kept when the table
// is replaced, if the set is planned alike again.
type Set struct {
	Name string
	Key  []Datatype // of what each element is; of a static set one number
	Of   Fields     // what the key is of, if a part of it is a number
	// Timeout is how long an element is kept; 0: the set is static. Whole seconds.
	Timeout time.Duration
	Size    uint32  // how many elements a set with a timeout takes
	Ranges  []Range // what is in a static set. They may overlap
	// Connected has a set with a timeout hold connections from the start.
	Connected Connected
}

// Range is numbers from one to another, both included.
type Range struct{ From, To uint16 }

// Datatype is what a part of a set's key is.
type Datatype = nftables.SetDatatype

// Datatypes.
var (
	IPv4Addr    = nftables.TypeIPAddr
	IPv6Addr    = nftables.TypeIP6Addr
	InetProto   = nftables.TypeInetProto
	InetService = nftables.TypeInetService
	Number16    = integer(2)
	Number32    = integer(4)
)

// Fields tells nft(8) what fields a key is of, where it has no type for their values: their
// names, and its own note of them, in hexadecimal, without which it can't list the set
// (set_make_key, src/netlink.c).
type Fields struct{ names, note string }

// Fields that are known.
var (
	// IPDatagram and IP6Datagram are what a datagram's fragments have in common.
	IPDatagram  = Fields{"ip saddr . ip protocol . ip id", "000400000000035000040d00000001480014000407000000010c00040c00000001040b0000000114000407000000010c00040c000000010409000000021a000407000000011200040c000000010406000000040410000000"}
	IP6Datagram = Fields{"ip6 saddr . frag nexthdr . frag id", "000400000000034a00040d00000001420014000407000000010c00040d0000000104080000000114000408000000010c0104010000000004060000000214000408000000010c010406000000000406000000"}
)

// integer is a field for whose values nft(8) has no type.
func integer(length uint32) Datatype {
	t := nftables.TypeInteger
	t.Bytes = length
	return t
}

// Operand is a [Field], whatever its values are.
type Operand interface {
	at(length int) string
	into(register uint32, length int) expr.Any
}

// InSet matches frames whose fields are in the set: one for each part of its key, and
// whole, without a mask.
func InSet(s Set, fields ...Operand) Part { return s.lookup(" @", false, fields) }

// NotInSet matches all others that have the fields.
func NotInSet(s Set, fields ...Operand) Part { return s.lookup(" != @", true, fields) }

func (s Set) lookup(operator string, invert bool, fields []Operand) Part {
	return Part{text: func() string { return s.words(fields) + operator + s.Name }, exprs: append(s.loaded(fields), &expr.Lookup{SourceRegister: s.register(), SetName: s.Name, Invert: invert})}
}

// UpdateSet puts the fields into a set, or has them stay there for another timeout,
// which is the set's own if it is 0. A rule ends here if the set is full.
func UpdateSet(s Set, timeout time.Duration, fields ...Operand) Part {
	return s.put("update", unix.NFT_DYNSET_OP_UPDATE, timeout, fields)
}

// AddToSet is UpdateSet, but that what is in the set already stays no longer for it.
func AddToSet(s Set, timeout time.Duration, fields ...Operand) Part {
	return s.put("add", unix.NFT_DYNSET_OP_ADD, timeout, fields)
}

// DeleteFromSet takes the fields out of a set.
func DeleteFromSet(s Set, fields ...Operand) Part {
	const deletes = 2 // NFT_DYNSET_OP_DELETE, linux/netfilter/nf_tables.h
	return s.put("delete", deletes, 0, fields)
}

func (s Set) put(verb string, operation uint32, timeout time.Duration, fields []Operand) Part {
	text := func() string {
		words := s.words(fields)
		if timeout > 0 {
			words += " timeout " + timeout.String()
		}
		return verb + " @" + s.Name + " { " + words + " }"
	}
	return Part{text: text, exprs: append(s.loaded(fields), &expr.Dynset{
		SrcRegKey: s.register(), SetName: s.Name, Operation: operation, Timeout: timeout,
	})}
}

// words are the fields in nft(8)'s language.
func (s Set) words(fields []Operand) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = f.at(int(s.Key[i].Bytes))
	}
	return strings.Join(words, " . ")
}

// keyRegister is where the key of several parts begins: behind the register that all else
// uses, so that what a rule compares too is loaded once. See reuse.
const keyRegister = unix.NFT_REG_2

// register is where the key begins.
func (s Set) register() uint32 {
	if len(s.Key) > 1 {
		return keyRegister
	}
	return unix.NFT_REG_1
}

// loaded are the fields, one behind the other in the registers, each in as many as it
// needs. One that 16 bytes go before has the old number of it, as nft(8) has it
// (netlink_put_register, src/netlink_linearize.c).
func (s Set) loaded(fields []Operand) (load []expr.Any) {
	n := 4 * (s.register() - unix.NFT_REG_1)
	for i, f := range fields {
		length := int(s.Key[i].Bytes)
		register := unix.NFT_REG32_00 + n
		if n%4 == 0 {
			register = unix.NFT_REG_1 + n/4
		}
		load = append(load, f.into(register, length))
		n += uint32(length+3) / 4
	}
	return load
}

// dynamic tells whether frames change the set.
func (s Set) dynamic() bool { return s.Timeout > 0 }

// key is the type of the elements. One of more than five parts is none of nftables'.
func (s Set) key() Datatype {
	if len(s.Key) == 1 {
		return s.Key[0]
	}
	key, _ := nftables.ConcatSetType(s.Key...)
	return key
}

// text is the set in nft(8)'s language, and what is in it; empty: nothing.
func (s Set) text() (definition, elements string) {
	if s.dynamic() {
		kind := "type " + s.key().Name
		if s.Of.names != "" {
			kind = "typeof " + s.Of.names
		}
		return fmt.Sprintf("%s; flags dynamic,timeout; timeout %s; size %d;", kind, s.Timeout, s.Size), ""
	}
	var words []string
	for _, r := range s.merged() {
		word := fmt.Sprint(r.From)
		if r.From != r.To {
			word += fmt.Sprint("-", r.To)
		}
		words = append(words, word)
	}
	return fmt.Sprintf("type %s; flags interval;", s.key().Name), strings.Join(words, ", ")
}

// merged are the ranges in their order, with none that touches another.
func (s Set) merged() (out []Range) {
	for _, r := range slices.SortedFunc(slices.Values(s.Ranges), func(a, b Range) int { return cmp.Compare(a.From, b.From) }) {
		if last := len(out) - 1; last >= 0 && int(r.From) <= int(out[last].To)+1 {
			out[last].To = max(out[last].To, r.To)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// present is the set as the kernel has it once it is made.
func (s Set) present() set {
	key := s.key()
	is := set{definition{flags: unix.NFT_SET_INTERVAL, keyType: key.GetNFTMagic(), keyLength: key.Bytes}, map[element]bool{}}
	if s.dynamic() {
		is.flags, is.timeout, is.size = unix.NFT_SET_TIMEOUT|unix.NFT_SET_EVAL, uint64(s.Timeout.Milliseconds()), s.Size
		return is
	}
	for _, e := range s.elements() {
		is.elements[e] = true
	}
	return is
}

// elements are what nft(8) makes of the ranges: the first number of each, and the
// first one behind it, if there is any.
func (s Set) elements() (out []element) {
	width := int(s.key().Bytes)
	at := func(n int, end bool) {
		b := binary.BigEndian.AppendUint32(nil, uint32(n))
		out = append(out, element{hex.EncodeToString(b[len(b)-width:]), end})
	}
	for i, r := range s.merged() {
		if i == 0 && r.From > 0 {
			at(0, true)
		}
		at(int(r.From), false)
		if int(r.To)+1 < 1<<(8*width) {
			at(int(r.To)+1, true)
		}
	}
	return out
}

// set is a set as the kernel has it.
type set struct {
	definition
	elements map[element]bool // of a static one
}

// definition is what a set is, whatever is in it.
type definition struct {
	flags, keyType, keyLength, size uint32
	timeout                         uint64 // in milliseconds
}

func (d definition) dynamic() bool { return d.flags&unix.NFT_SET_EVAL != 0 }

// element is a number at which a range begins, or before which one ends.
type element struct {
	key string // in hexadecimal
	end bool
}

// addSet adds the set, of a number of its own in the batch, and what is in it.
func (b *batch) addSet(table string, s Set, number int) {
	is := s.present()
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, []string{table, s.Name}, func() {
		b.uint32(unix.NFTA_SET_FLAGS, is.flags)
		b.uint32(unix.NFTA_SET_KEY_TYPE, is.keyType)
		b.uint32(unix.NFTA_SET_KEY_LEN, is.keyLength)
		b.uint32(unix.NFTA_SET_ID, uint32(number))
		if note, _ := hex.DecodeString(s.Of.note); len(note) > 0 {
			b.bytes(unix.NFTA_SET_USERDATA, note)
		}
		if s.dynamic() {
			b.uint64(unix.NFTA_SET_TIMEOUT, is.timeout)
			b.nested(unix.NFTA_SET_DESC, func() { b.uint32(unix.NFTA_SET_DESC_SIZE, is.size) })
		}
	})
	addElements(b, table, s.Name, s.elements())
}

// addElements adds elements to a set.
func addElements[E interface{ encode(*attributes) }](b *batch, table, set string, all []E) {
	for part := range slices.Chunk(all, 500) { // an attribute has less than 64 KiB
		b.add(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, []string{table, set}, func() {
			b.nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				for _, e := range part {
					b.nested(unix.NFTA_LIST_ELEM, func() { e.encode(&b.attributes) })
				}
			})
		})
	}
}

func (e element) encode(a *attributes) {
	if e.end {
		a.uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	key, _ := hex.DecodeString(e.key) // as elements encodes it
	a.value(unix.NFTA_SET_ELEM_KEY, key)
}

// differs says how a set is not the planned one; empty: it is.
func (s Set) differs(is set) string {
	want := s.present()
	switch {
	case is.definition != want.definition:
		return "is of another kind than planned"
	case !maps.Equal(is.elements, want.elements):
		return "has other elements than planned"
	}
	return ""
}
