package dhcp

import "strings"

// maxPointer is the largest offset that a compression pointer reaches.
const maxPointer = 0x3fff

// encodeSearch writes the domain search list (RFC 3397): names of RFC 1035
// §3.1, compressed as in §4.1.4, offsets counted from the start of the option's
// whole value. A pointer leads to a name that is written out in full, never to
// another pointer, because some clients follow only one.
//
// The names have been normalized.
func encodeSearch(domains []string) []byte {
	if len(domains) == 0 {
		return nil
	}
	var out []byte
	written := map[string]int{} // suffix → offset where it is written out
	for _, name := range domains {
		start, rest := len(out), name
		for rest != "" {
			if at, ok := written[rest]; ok {
				out = append(out, 0xc0|byte(at>>8), byte(at))
				break
			}
			label, tail, _ := strings.Cut(rest, ".")
			out = append(out, byte(len(label)))
			out = append(out, label...)
			rest = tail
		}
		if rest != "" {
			continue
		}
		out = append(out, 0)
		for at := start; name != "" && at <= maxPointer; {
			if _, ok := written[name]; !ok {
				written[name] = at
			}
			label, tail, _ := strings.Cut(name, ".")
			at += 1 + len(label)
			name = tail
		}
	}
	return out
}
