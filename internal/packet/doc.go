// Package packet has the frames of IPv4, ARP and IPv6, and a packet socket on one
// Ethernet interface (Conn) that is read within a budget (Conn.Run). Making and
// parsing frames is pure, and trusts no length in a frame.
//
// A packet socket on a tap sees the guest's frames before a bridge does. It
// needs no address on any interface, and nobody but the guest can reach it.
// What it sends leaves through that interface only.
package packet
