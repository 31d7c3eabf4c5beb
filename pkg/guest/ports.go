package guest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Ports are ports of TCP and UDP, in order and without overlap, as [ParsePorts] makes
// them. The zero value is none. As text they are such as "53/udp,8080,9000-9010/tcp".
type Ports struct {
	TCP, UDP []PortRange
}

// PortRange is ports from one to another, both included.
type PortRange struct{ First, Last uint16 }

func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// ParsePorts reads ports and ranges with commas between them, each followed by /tcp,
// /udp, or by nothing if it is of both. Empty text is none.
func ParsePorts(text string) (p Ports, err error) {
	if strings.TrimSpace(text) == "" {
		return Ports{}, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		ports, protocol, named := strings.Cut(word, "/")
		r, ok := parseRange(ports)
		switch {
		case !ok, named && protocol != "tcp" && protocol != "udp":
			return Ports{}, fmt.Errorf("%q is not a port: write 1 to 65535, or a range such as 9000-9010, "+
				"with /tcp or /udp behind it unless it is of both, and commas between several", word)
		case protocol != "udp":
			p.TCP = append(p.TCP, r)
			if named {
				break
			}
			fallthrough
		default:
			p.UDP = append(p.UDP, r)
		}
	}
	p.TCP, p.UDP = merge(p.TCP), merge(p.UDP)
	return p, nil
}

func parseRange(text string) (r PortRange, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	return PortRange{uint16(from), uint16(to)}, err1 == nil && err2 == nil && from > 0 && from <= to
}

// merge sorts ranges, and makes one of those that overlap or touch.
func merge(ranges []PortRange) (out []PortRange) {
	for _, r := range slices.SortedFunc(slices.Values(ranges), func(a, b PortRange) int { return cmp.Compare(a.First, b.First) }) {
		if last := len(out) - 1; last >= 0 && int(r.First) <= int(out[last].Last)+1 {
			out[last].Last = max(out[last].Last, r.Last)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// Validate tells what is wrong with ports that ParsePorts has not made.
func (p Ports) Validate() error {
	q, err := ParsePorts(p.String())
	if err == nil && !q.Equal(p) {
		err = fmt.Errorf("the ports %s are not in order and without overlap: make them by ParsePorts, of %q", p, q)
	}
	return err
}

// IsZero reports whether there are none.
func (p Ports) IsZero() bool { return len(p.TCP) == 0 && len(p.UDP) == 0 }

// Equal reports whether both are the same ports.
func (p Ports) Equal(q Ports) bool { return slices.Equal(p.TCP, q.TCP) && slices.Equal(p.UDP, q.UDP) }

// String returns the ports as ParsePorts reads them.
func (p Ports) String() string {
	type port struct {
		PortRange
		suffix string
	}
	var all []port
	for _, r := range p.TCP {
		if slices.Contains(p.UDP, r) {
			all = append(all, port{r, ""})
		} else {
			all = append(all, port{r, "/tcp"})
		}
	}
	for _, r := range p.UDP {
		if !slices.Contains(p.TCP, r) {
			all = append(all, port{r, "/udp"})
		}
	}
	slices.SortStableFunc(all, func(a, b port) int { return cmp.Compare(a.First, b.First) })
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = a.String() + a.suffix
	}
	return strings.Join(words, ",")
}

// MarshalText implements [encoding.TextMarshaler].
func (p Ports) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Ports) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePorts(string(b))
	return err
}
