// Package ra sends router advertisements (RFC 4861) to the guest behind a tap,
// and to nobody else. It needs no address and no forwarding on any interface:
// the router that it advertises is another machine, the pod's gateway, and the
// guest's packets go there without us.
//
// Three parts, from left to right: Advertisement is what the router says, a
// value that is encoded without effects; schedule is when it is said
// (RFC 4861 §6.2.4 to §6.2.6), without a clock; Server joins them with a packet
// socket on the tap.
//
// # What the guest keeps
//
// The server may be killed at any time, so it promises for long: the router for
// up to 65535 seconds, the longest that its field holds (RFC 8319), all else
// without end. A default route without end is possible too, as a route of its
// own (Routes with ::/0): hosts of type C by RFC 4191, which are Linux, Windows
// and systemd-networkd, take it instead of the one with the header's lifetime.
// A server that ends does not say good-bye (RFC 4861 §6.2.5): the router is
// still there.
//
// # Why not mdlayher/ndp
//
// Its v1.1.0 can neither make nor read an option of 256 bytes or more (a length of 32
// or more overflows): a long search domain, or sixteen name servers.
//
// # Use
//
//	server, err := ra.NewServer("tap-eth0", guestMAC, advertisement, log) // in the pod's network namespace
//	defer server.Close()
//	go server.Serve(ctx)                                                  // in any
package ra
