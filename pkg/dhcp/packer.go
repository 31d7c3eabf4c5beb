package dhcp

import "github.com/insomniacslk/dhcp/dhcpv4"

// maxPart is the longest part of an option: its length is one byte.
const maxPart = 255

// packer puts options into the fields of a message that can hold them.
type packer struct {
	b        []byte // the message, up to the options
	overload bool
	fields   [3]field // options, file, sname: the order of RFC 3396 §5
}

// field is a range of bytes that takes options.
type field struct {
	b    []byte
	room int
}

// open prepares the fields. Each keeps a byte for its end; with overload, the
// first also keeps room for the option that says so.
func (p *packer) open(limit int, overload bool, m *dhcpv4.DHCPv4) {
	p.overload = overload
	p.fields[0] = field{b: p.b[optionsAt:], room: limit - optionsAt - 1}
	if !overload {
		return
	}
	p.fields[0].room -= 3
	if m.BootFileName == "" {
		p.fields[1] = field{b: p.b[fileAt:fileAt:cookieAt], room: cookieAt - fileAt - 1}
	}
	if m.ServerHostName == "" {
		p.fields[2] = field{b: p.b[snameAt:snameAt:fileAt], room: fileAt - snameAt - 1}
	}
}

func (p *packer) putAll(options dhcpv4.Options, order []byte) (left []uint8) {
	for _, code := range order {
		if !p.put(code, options[code]) {
			left = append(left, code)
		}
	}
	return left
}

// put puts an option whole into the first field that has room. Only one that
// has to be sent in parts anyway may go on in the next field.
func (p *packer) put(code uint8, value []byte) bool {
	for i := range p.fields {
		if putIn(p.fields[i:i+1], code, value) {
			return true
		}
	}
	return len(value) > maxPart && putIn(p.fields[:], code, value)
}

// putIn puts an option into the fields, in parts where it must, or leaves them
// as they were if it does not fit.
func putIn(fs []field, code uint8, value []byte) bool {
	var was [3]field
	copy(was[:], fs)
	for i := range fs {
		rest, done := fs[i].fill(code, value)
		if done {
			return true
		}
		value = rest
	}
	copy(fs, was[:])
	return false
}

// fill takes as much of a value as fits, and returns the rest and whether it
// took all.
func (f *field) fill(code uint8, value []byte) (rest []byte, done bool) {
	for {
		n := part(code, value, min(f.room-2, maxPart))
		if n < 0 || n == 0 && len(value) > 0 {
			return value, false
		}
		f.b = append(f.b, code, byte(n))
		f.b = append(f.b, value[:n]...)
		f.room -= 2 + n
		value = value[n:]
		if len(value) == 0 {
			return nil, true
		}
	}
}

// part is how many bytes of a value go into a part of at most limit bytes.
// Parts of option 121 end where a route ends: systemd-networkd 252 reads
// each for itself, and so loses the routes after the first.
func part(code uint8, value []byte, limit int) int {
	if code != optRoutes && code != optRoutesMS {
		return min(len(value), limit)
	}
	n := 0
	for n < len(value) {
		next := n + 1 + (int(value[n])+7)/8 + 4
		if next > len(value) {
			return min(len(value), limit) // set by hand, and not well
		}
		if next > limit {
			break
		}
		n = next
	}
	return min(n, limit)
}

// close ends the fields and returns the whole message, which has at least the
// size that BOOTP asks for.
func (p *packer) close() []byte {
	options := p.fields[0].b
	if p.overload {
		var used byte
		for i, f := range p.fields[1:] {
			if len(f.b) > 0 {
				used |= 1 << i
				_ = append(f.b, optEnd) // in place: the field kept room for it
			}
		}
		if used != 0 {
			options = append(options, optOverload, 1, used)
		}
	}
	options = append(options, optEnd)
	for len(options) < minMessage-optionsAt {
		options = append(options, optPad)
	}
	return append(p.b[:optionsAt], options...)
}
