// Package packet is what servers on a guest's tap share: a packet socket on one
// Ethernet interface (Conn) that is read within a budget (Conn.Run), frames of
// IPv6 (Seal6, Parse6) and checksums.
//
// A packet socket on a tap sees the guest's frames before a bridge does. It
// needs no address on any interface, and nobody but the guest can reach it.
// What it sends leaves through that interface only.
package packet
