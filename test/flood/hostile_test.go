package flood_test

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// kinds are ways to do harm, by their names: each makes a frame.
type kinds map[string]func() []byte

// join puts kinds together; each name begins with that of its map.
func join(parts map[string]kinds) kinds {
	all := kinds{}
	for part, kinds := range parts {
		for name, frame := range kinds {
			all[part+": "+name] = frame
		}
	}
	return all
}

// some are frames of each kind, made before they are sent: what is measured is
// the server.
func (k kinds) some() (frames [][]byte) {
	for _, name := range slices.Sorted(maps.Keys(k)) { // the same order for the same seed
		for range 64 {
			frames = append(frames, k[name]())
		}
	}
	return frames
}

// hostile makes the frames of a guest that means harm.
type hostile struct {
	mac    net.HardwareAddr
	random *rand.Rand
}

func newHostile(mac net.HardwareAddr) hostile {
	return hostile{mac: mac, random: rand.New(rand.NewPCG(1, 2))}
}

func (h hostile) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(h.random.Uint32())
	}
	return b
}

// otherFrames are what becomes of good frames of any protocol.
func (h hostile) otherFrames(good func() []byte) kinds {
	return kinds{
		"forged source":   func() []byte { return h.forgedSource(good()) },
		"random ethernet": func() []byte { return append(good()[:podtest.EthernetLen], h.bytes(h.random.IntN(1486))...) },
		"truncated":       func() []byte { return h.truncated(good()) },
		"VLAN":            func() []byte { return h.tagged(good(), 0x8100) },
		"provider VLAN":   func() []byte { return h.tagged(good(), 0x88a8) },
	}
}

// otherMessages are what becomes of good messages whose frames are right: carry
// makes these. Options begin at an offset.
func (h hostile) otherMessages(good func() []byte, optionsAt int, carry func(message []byte) []byte) kinds {
	return kinds{
		"random payload":   func() []byte { return carry(h.bytes(h.random.IntN(1400))) },
		"random options":   func() []byte { return carry(append(good()[:optionsAt], h.bytes(h.random.IntN(1000))...)) },
		"truncated, whole": func() []byte { m := good(); return carry(m[:h.random.IntN(len(m))]) },
		"oversized":        func() []byte { return carry(append(good(), h.bytes(1100)...)) },
		"jumbo":            func() []byte { return carry(append(good(), h.bytes(8000)...)) },
	}
}

func (h hostile) forgedSource(frame []byte) []byte {
	copy(frame[6:12], h.bytes(6))
	frame[6] &^= 1 // not a group's
	return frame
}

func (h hostile) truncated(frame []byte) []byte {
	return frame[:podtest.EthernetLen+h.random.IntN(len(frame)-podtest.EthernetLen)]
}

// flip makes a byte of a frame another.
func (h hostile) flip(frame []byte, at int) []byte {
	frame[at] ^= byte(1 + h.random.IntN(255))
	return frame
}

func (h hostile) tagged(frame []byte, protocol uint16) []byte {
	tag := binary.BigEndian.AppendUint16(nil, protocol)
	tag = binary.BigEndian.AppendUint16(tag, uint16(h.random.IntN(4096)))
	return slices.Insert(frame, 12, tag...)
}
