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
	room := 0
	for i := range p.fields {
		f := &p.fields[i]
		if f.holds() >= len(value) && f.room >= 2 {
			f.put(code, value)
			return true
		}
		room += f.holds()
	}
	if len(value) <= maxPart || room < len(value) {
		return false
	}
	for i := range p.fields {
		f := &p.fields[i]
		n := min(f.holds(), len(value))
		if n > 0 {
			f.put(code, value[:n])
			value = value[n:]
		}
	}
	return true
}

// holds is how many bytes of one value fit, in as many parts as it takes.
func (f *field) holds() int {
	whole, rest := f.room/(maxPart+2), f.room%(maxPart+2)
	return whole*maxPart + max(rest-2, 0)
}

func (f *field) put(code uint8, value []byte) {
	for {
		n := min(len(value), maxPart)
		f.b = append(f.b, code, byte(n))
		f.b = append(f.b, value[:n]...)
		f.room -= 2 + n
		value = value[n:]
		if len(value) == 0 {
			return
		}
	}
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
