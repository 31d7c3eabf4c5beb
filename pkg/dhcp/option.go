package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
)

// maxOption is the longest value of one option in bytes. Longer ones would not
// fit any message.
const maxOption = 1024

// Option is one DHCP option as it goes onto the wire, without code and length.
// No Value: the option is not sent, even if the lease's fields would have it.
type Option struct {
	Code  uint8
	Value []byte
}

// Codes of the options the package itself deals with (RFC 2132 unless noted).
const (
	optPad            = 0
	optSubnetMask     = 1
	optRouter         = 3
	optDNS            = 6
	optHostname       = 12
	optDomainName     = 15
	optMTU            = 26
	optNTP            = 42
	optVendor         = 43
	optRequestedIP    = 50
	optLeaseTime      = 51
	optOverload       = 52
	optMessageType    = 53
	optServerID       = 54
	optParameters     = 55
	optMessage        = 56
	optMaxMessageSize = 57
	optRenewal        = 58
	optRebinding      = 59
	optVendorClass    = 60
	optClientID       = 61
	optTFTPServer     = 66
	optBootFile       = 67
	optUserClass      = 77  // RFC 3004
	optRapidCommit    = 80  // RFC 4039
	optFQDN           = 81  // RFC 4702
	optArchitecture   = 93  // RFC 4578
	optClientUUID     = 97  // RFC 4578
	optSearch         = 119 // RFC 3397
	optRoutes         = 121 // RFC 3442
	optTFTPAddresses  = 150 // RFC 5859
	optIPXE           = 175 // iPXE's own options
	optRoutesMS       = 249 // Microsoft's early number of 121
	optEnd            = 255
)

// owned says why an option cannot be set by hand.
var owned = map[uint8]string{
	optPad:            "it is padding",
	optSubnetMask:     "it follows from the address",
	optRequestedIP:    "only a client sends it",
	optLeaseTime:      "it follows from the lease's duration",
	optOverload:       "it follows from the message's size",
	optMessageType:    "it is the message's type",
	optServerID:       "it is the server's identifier",
	optParameters:     "only a client sends it",
	optMessage:        "it is a refusal's reason",
	optMaxMessageSize: "only a client sends it",
	optRenewal:        "it follows from the lease's duration",
	optRebinding:      "it follows from the lease's duration",
	optClientID:       "it repeats the client's",
	optRapidCommit:    "it answers the client's",
	optFQDN:           "the server registers no names",
	optUserClass:      "only a client sends it",
	82:                "only a relay sends it",
	90:                "messages are not authenticated",
	optArchitecture:   "only a client sends it",
	optClientUUID:     "it repeats the client's",
	optEnd:            "it is the end of the options",
}

// kind is how the text of an option's value is read, and which sizes it can have.
type kind struct {
	read func(text string) ([]byte, error)
	size int  // in bytes; 0: any
	many bool // or a multiple of it
}

var (
	kindAddr   = kind{readAddrs, 4, false}
	kindAddrs  = kind{readAddrs, 4, true}
	kindPairs  = kind{readAddrs, 8, true}
	kindUint8  = kind{readUint(8), 1, false}
	kindUint16 = kind{readUint(16), 2, false}
	kindUint32 = kind{readUint(32), 4, false}
	kindInt32  = kind{readInt32, 4, false}
	kindNames  = kind{read: readNames}
	kindRoutes = kind{read: readRoutes} // destination,gateway,…
)

// kinds holds the options that are not text (RFC 2132 §3–8 and as noted above).
var kinds = map[uint8]kind{
	2: kindInt32, 3: kindAddrs, 4: kindAddrs, 5: kindAddrs, 6: kindAddrs, 7: kindAddrs,
	8: kindAddrs, 9: kindAddrs, 10: kindAddrs, 11: kindAddrs, 13: kindUint16, 16: kindAddr,
	19: kindUint8, 20: kindUint8, 21: kindPairs, 22: kindUint16, 23: kindUint8, 24: kindUint32,
	26: kindUint16, 27: kindUint8, 28: kindAddr, 29: kindUint8, 30: kindUint8, 31: kindUint8,
	32: kindAddr, 33: kindPairs, 34: kindUint8, 35: kindUint32, 36: kindUint8, 37: kindUint8,
	38: kindUint32, 39: kindUint8, 41: kindAddrs, 42: kindAddrs, 44: kindAddrs, 45: kindAddrs,
	46: kindUint8, 48: kindAddrs, 49: kindAddrs, 65: kindAddrs, 68: kindAddrs, 69: kindAddrs,
	70: kindAddrs, 71: kindAddrs, 72: kindAddrs, 73: kindAddrs, 74: kindAddrs, 75: kindAddrs,
	76: kindAddrs, 108: kindUint32, 116: kindUint8,
	optSearch: kindNames, optRoutes: kindRoutes, optTFTPAddresses: kindAddrs, optRoutesMS: kindRoutes,
}

// ParseOption reads CODE=VALUE. How VALUE is written follows from the code:
// addresses separated by commas for options of addresses (42=10.0.0.1,10.0.0.2),
// a number for those of numbers, domain names for 119, destination,gateway,… for
// 121 and 249, text for all others. 0x… or hex:… gives the bytes themselves,
// text:… is text whatever it looks like. Nothing after the sign takes the
// option away (3= : no router).
//
// Options that the server must own are refused.
func ParseOption(s string) (Option, error) {
	code, value, ok := strings.Cut(s, "=")
	if !ok {
		return Option{}, fmt.Errorf("parse DHCP option %q: want CODE=VALUE", s)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(code), 10, 8)
	if err != nil {
		return Option{}, fmt.Errorf("parse DHCP option %q: the code is not a number within 0 and 255", s)
	}
	o := Option{Code: uint8(n)}
	if o.Value, err = parseValue(kinds[o.Code], value); err != nil {
		return Option{}, fmt.Errorf("parse DHCP option %q: %w", s, err)
	}
	if err := o.validate(); err != nil {
		return Option{}, err
	}
	return o, nil
}

// validate tells whether the option may be set and its value has a size that
// options of its code can have.
func (o Option) validate() error {
	if why, ok := owned[o.Code]; ok {
		return fmt.Errorf("set DHCP option %d: not possible, %s", o.Code, why)
	}
	if len(o.Value) > maxOption {
		return fmt.Errorf("set DHCP option %d: %d bytes are more than %d", o.Code, len(o.Value), maxOption)
	}
	n, k := len(o.Value), kinds[o.Code]
	if k.size > 0 && (n%k.size != 0 || n > k.size && !k.many) {
		return fmt.Errorf("set DHCP option %d: its value cannot have %d bytes", o.Code, n)
	}
	if o.Code == optMTU && n > 0 && binary.BigEndian.Uint16(o.Value) < minMTU {
		return fmt.Errorf("set DHCP option %d: an MTU is at least %d", o.Code, minMTU)
	}
	return nil
}

func parseValue(k kind, s string) ([]byte, error) {
	digits, isHex := strings.CutPrefix(s, "0x")
	if !isHex {
		digits, isHex = strings.CutPrefix(s, "hex:")
	}
	text, isText := strings.CutPrefix(s, "text:")
	switch {
	case isHex:
		b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(digits))
		if err != nil {
			return nil, errors.New("the hexadecimal value has an odd number of digits, or other characters than 0-9 and a-f")
		}
		if len(b) == 0 {
			return nil, errors.New("the hexadecimal value is empty")
		}
		return b, nil
	case isText || k.read == nil || s == "":
		return []byte(text), nil
	}
	return k.read(s)
}

// fields splits at commas and white space.
func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

func readAddrs(text string) ([]byte, error) {
	var out []byte
	for _, w := range fields(text) {
		a, err := netip.ParseAddr(w)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("%q is not an IPv4 address", w)
		}
		out = append(out, a.AsSlice()...)
	}
	if len(out) == 0 {
		return nil, errors.New("it holds no address")
	}
	return out, nil
}

func readUint(bits int) func(string) ([]byte, error) {
	return func(text string) ([]byte, error) {
		v, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number of %d bits without sign", text, bits)
		}
		return binary.BigEndian.AppendUint64(nil, v)[8-bits/8:], nil
	}
}

func readInt32(text string) ([]byte, error) {
	v, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is not a whole number of 32 bits", text)
	}
	return binary.BigEndian.AppendUint32(nil, uint32(v)), nil
}

func readNames(text string) ([]byte, error) {
	var n normalize.Notes
	names := n.Search(fields(text))
	if len(n) > 0 {
		return nil, errors.New(n[0])
	}
	if len(names) == 0 {
		return nil, errors.New("it holds no domain name")
	}
	return encodeSearch(names), nil
}

func readRoutes(text string) ([]byte, error) {
	words := fields(text)
	if len(words) == 0 || len(words)%2 != 0 {
		return nil, errors.New("want DESTINATION,GATEWAY pairs")
	}
	var routes []Route
	for i := 0; i < len(words); i += 2 {
		dst, err := netip.ParsePrefix(words[i])
		if err != nil || !dst.Addr().Is4() {
			return nil, fmt.Errorf("%q is not an IPv4 prefix", words[i])
		}
		gw, err := netip.ParseAddr(words[i+1])
		if err != nil || !gw.Is4() {
			return nil, fmt.Errorf("%q is not an IPv4 address", words[i+1])
		}
		routes = append(routes, Route{Destination: dst.Masked(), Gateway: gw})
	}
	return encodeRoutes(routes), nil
}
